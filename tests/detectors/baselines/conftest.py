"""A model whose every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel


class TwoLayers(nn.Module):
    """Twice the input, then what of it is positive."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.twice = nn.Linear(size, size, bias=False)
        self.twice.weight.data = 2 * torch.eye(size)
        self.act = nn.ReLU()

    def forward(self, x, lengths=None):
        return self.act(self.twice(x))


@pytest.fixture
def by_hand() -> Callable[..., InstrumentedModel]:
    """Make a model of given head weights (C, N): logits are head · relu(2 x)."""

    def made(head: Sequence[Sequence[float]]) -> InstrumentedModel:
        weight = torch.tensor(head)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = weight
        network = TwoLayers(weight.shape[1])
        return InstrumentedModel(network, head=linear, bounds=Bounds(-1.0, 1.0)).eval()

    return made


@pytest.fixture
def item() -> Callable[..., Batch]:
    def made(*values: float) -> Batch:
        return Batch(torch.tensor([values]))

    return made
