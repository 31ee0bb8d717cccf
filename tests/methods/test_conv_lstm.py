"""The ConvLSTM against torch's LSTM cell and a plain pixel by hand."""

import math

import torch
from torch import nn

from vidistill.methods.space_time import ConvLSTM


def test_on_one_pixel_it_is_torchs_lstm() -> None:
    """A 1×1 frame sees only the kernel's centre, which is then an LSTMCell's matrix; torch's gates are i, f, g, o."""
    ours, theirs = ConvLSTM(3), nn.LSTMCell(3, 3)
    centre = ours.gates.weight.data[:, :, 1, 1]
    order = torch.cat([torch.arange(0, 6), torch.arange(9, 12), torch.arange(6, 9)])
    theirs.weight_ih.data, theirs.weight_hh.data = centre[order, :3].clone(), centre[order, 3:].clone()
    theirs.bias_ih.data, theirs.bias_hh.data = ours.gates.bias.data[order].clone(), torch.zeros(12)
    clip = torch.randn(2, 4, 3, 1, 1)
    hidden = cell = torch.zeros(2, 3)
    for frame in clip.unbind(dim=1):
        hidden, cell = theirs(frame[:, :, 0, 0], (hidden, cell))
    torch.testing.assert_close(ours(clip)[:, :, 0, 0], cell)


def test_two_frames_by_hand() -> None:
    lstm = ConvLSTM(1)
    nn.init.zeros_(lstm.gates.weight)
    nn.init.zeros_(lstm.gates.bias)
    lstm.gates.weight.data[3, 0, 1, 1] = 1  # the candidate is the frame; every gate is one half
    clip = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    expected = 0.5 * (0.5 * math.tanh(1)) + 0.5 * math.tanh(2)
    assert math.isclose(lstm(clip).item(), expected, rel_tol=1e-6)


def test_order_matters_and_size_is_kept() -> None:
    lstm, clip = ConvLSTM(4), torch.randn(2, 3, 4, 5, 7)
    cell = lstm(clip)
    assert cell.shape == (2, 4, 5, 7)
    assert not torch.allclose(cell, lstm(clip.flip(1)), atol=1e-3)
