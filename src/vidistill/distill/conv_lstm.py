"""The convolutional LSTM through which features of teacher and student go to compare how they change."""

import torch
from torch import Tensor, nn


class ConvLSTM(nn.Module):
    """One 3×3 layer whose hidden state has as many channels as its input; no peepholes, zero start.

    Called with a clip (B, T, C, H, W) it gives the memory cell after the last frame, (B, C, H, W).
    Source: Shi et al. 2015 (arXiv 1506.04214), without the Hadamard terms. Input and hidden state are convolved
    together by `gates`, whose outputs are the input, forget and output gates and the candidate, in this order.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = cell = torch.zeros_like(features[:, 0])
        for frame in features.unbind(dim=1):
            gates = self.gates(torch.cat([frame, hidden], dim=1))
            admit, keep, show, candidate = gates.chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
            hidden = torch.sigmoid(show) * torch.tanh(cell)
        return cell
