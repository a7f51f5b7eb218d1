"""Spectrograms, what is fitted on them, and a model whose answers can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings
from nip_audio.purifiers.patch_dictionary import PatchDictionary

WAVEFORM = Bounds(-1.0, 1.0)
SPECTROGRAM = Bounds(0.0, 1.0)


class SumOfRows(nn.Module):
    """Embeds a spectrogram as the sums over time of its lowest two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))  # so that it has something to be changed

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.factor.to(x.dtype) * x.flatten(1, -2)[:, :2].sum(dim=2)


class SixRows(nn.Module):
    """Embeds a spectrogram as the sums over time of its lowest six rows, each its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        rows: Tensor = self.pool(x.flatten(1, -2)[:, :6].sin().sum(dim=2))
        return rows


@pytest.fixture
def rows_model() -> InstrumentedModel:
    """Names the louder of a spectrogram's lowest two rows."""
    return InstrumentedModel(
        SumOfRows(), head=nn.Identity(), bounds=WAVEFORM, input_bounds=SPECTROGRAM
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def surfaces(items: int = 2, rows: int = 20, columns: int = 37, seed: int = 3) -> Tensor:
    coarse = torch.rand(items, 1, 5, 6, generator=seeded(seed))
    smooth = nn.functional.interpolate(coarse, size=(rows, columns), mode="bilinear")[:, 0]
    noise = torch.randn(smooth.shape, generator=seeded(seed + 1))
    return (0.1 + 0.8 * smooth + 0.02 * noise).clamp(0, 1)


@pytest.fixture(scope="session")
def spectrograms() -> Callable[..., Tensor]:
    """Make smooth random surfaces with a little noise, (items, rows, columns) in [0, 1]."""
    return surfaces


@pytest.fixture(scope="session")
def patches() -> PatchDictionary:
    return PatchDictionary.fit(
        [Batch(surfaces(6, seed=50))],
        bounds=SPECTROGRAM,
        generator=seeded(),
        seen=["a", "b"],
        patch=4,
        atoms=16,
        nonzero=3,
    )


@pytest.fixture
def guided() -> GuidedNip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = InverseNet(width=4)
        nn.init.normal_(net.out.weight, std=0.01)
    return GuidedNip(net.eval().requires_grad_(False), bounds=SPECTROGRAM, seen=["a"])


@pytest.fixture
def pool() -> NipPool:
    """Fitted to a model of six neurons."""
    model = InstrumentedModel(
        SixRows(), head=nn.Identity(), bounds=WAVEFORM, input_bounds=SPECTROGRAM
    )
    return NipPool.fit(
        model.eval(),
        [Batch(surfaces(6, seed=60))],
        layer="pool",
        model_id="m",
        settings=PoolSettings(front=1, tail=1, quorum=0.2),
    )
