"""A hash of tensors, by which two networks or two states are told apart."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """20 bytes of a text and of named tensors, with their shapes and types; the device and the layout do not count."""
    hashed = hashlib.blake2b(text.encode(), digest_size=20)
    for name, tensor in tensors.items():
        hashed.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hashed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.digest()
