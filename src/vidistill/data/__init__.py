"""Frames and their labels: video files, sequences, data sets, and the clips drawn from them."""
