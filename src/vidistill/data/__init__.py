"""Frames, labels and boxes: from files on disk to the batches that a run trains on."""
