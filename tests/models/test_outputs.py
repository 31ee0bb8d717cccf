import pytest
import torch

from vidistill.models.outputs import logits_of

LOGITS = torch.zeros(1, 2)


def test_outputs_of_every_kind() -> None:
    class Named:
        logits = LOGITS

    for outputs in (LOGITS, {"out": LOGITS, "aux": None}, {"logits": LOGITS}, Named()):
        assert logits_of(outputs) is LOGITS
    with pytest.raises(TypeError, match="got list"):
        logits_of([LOGITS])
