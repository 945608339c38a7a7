"""A residual network of 11 million parameters. Importing torchvision takes longer than all that is tried with it."""

import itertools

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions around which the input goes too, folded to `stride` where that is not 1."""

    def __init__(self, taken: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(taken, made, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(made)
        self.second = nn.Conv2d(made, made, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(made)
        self.around = nn.Identity() if taken == made else nn.Conv2d(taken, made, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(made)) + self.around(x))


def make() -> tuple[nn.Module, torch.Tensor]:
    """Return the network and an input, shape (1, 3, 64, 64)."""
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(taken, made, made // taken) for taken, made in itertools.pairwise(widths)]
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    return nn.Sequential(stem, *blocks, head), torch.randn(1, 3, 64, 64)
