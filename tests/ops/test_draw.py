import numpy as np

from vidistill.ops.draw import caption


def test_a_caption_leaves_the_frame_itself_clean() -> None:
    frame = np.full((40, 60, 3), 90, np.uint8)
    picture = caption(frame, "input")
    assert (frame == 90).all()
    assert (picture[:8, :8] != 90).any()
    assert (picture[30:] == 90).all()
