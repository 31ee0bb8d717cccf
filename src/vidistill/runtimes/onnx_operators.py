"""Operators of ours in ONNX's."""

from collections.abc import Callable
from typing import Any

import torch

LEAST = -1e30  # below every score but that of an empty box
FLOAT, BOOL = 1, 9  # ONNX's numbers for types


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """By torch operator the function that writes it with ONNX's, as `torch.onnx.export` takes them."""
    import onnxscript

    import vidistill.ops.boxes  # noqa: F401 - defines the operator

    op: Any = onnxscript.opset18

    def suppress(boxes: Any, scores: Any, groups: Any, iou_threshold: float, num_kept: int) -> Any:
        """ONNX's own non-maximum suppression, its answer filled up with −1 to `num_kept`; of one frame at a time."""
        low, high = op.Split(boxes, axis=-1, num_outputs=2)
        is_longer = op.Cast(op.Greater(high, low), to=FLOAT)
        solid = op.Cast(op.ReduceMin(is_longer, op.Constant(value_ints=[-1]), keepdims=0), to=BOOL)
        counted = op.Where(solid, scores, op.Constant(value_float=10 * LEAST))
        apart = op.Unsqueeze(op.Cast(groups, to=FLOAT), op.Constant(value_ints=[-1]))
        reach = op.Add(op.Sub(op.ReduceMax(boxes), op.ReduceMin(boxes)), op.Constant(value_float=1.0))
        found = op.NonMaxSuppression(
            op.Add(boxes, op.Mul(apart, reach)),  # boxes of different groups do not touch
            op.Unsqueeze(counted, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[num_kept]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[LEAST]),
        )
        places = op.Gather(found, op.Constant(value_int=2), axis=1)
        missing = op.Sub(op.Constant(value_ints=[num_kept]), op.Shape(places))
        pads = op.Concat(op.Constant(value_ints=[0]), missing, axis=0)
        filled = op.Pad(places, pads, op.Constant(value_int=-1))
        return op.Reshape(filled, op.Constant(value_ints=[1, num_kept]))

    return {torch.ops.vidistill.suppress.default: suppress}
