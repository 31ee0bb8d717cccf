"""Kinds of `FrameSequence`: of videos, of image files, with boxes, with classes, of high resolution."""
