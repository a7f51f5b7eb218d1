from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.kenansville import Kenansville, drop_weakest
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError

SIZE = 1000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(cycles: int, amplitude: float) -> torch.Tensor:
    phase = 2 * torch.pi * cycles * torch.arange(SIZE) / SIZE
    return amplitude * torch.sin(phase)


class HearsTone(nn.Module):
    """Is speaker 0 as long as a certain weak tone is there."""

    def forward(self, x, lengths=None):
        level = torch.fft.rfft(x)[:, 30].abs() / SIZE
        return torch.stack([level, torch.full_like(level, 0.01)], dim=1)


def test_weakest_components_go_first():
    clip = tone(10, 0.5) + tone(30, 0.05) + tone(70, 0.01)
    # energies of the tones are 1 : 0.01 : 0.0004
    torch.testing.assert_close(drop_weakest(clip, snr_db=40), clip, atol=1e-5, rtol=0)
    left = drop_weakest(clip, snr_db=30)
    torch.testing.assert_close(left, tone(10, 0.5) + tone(30, 0.05), atol=1e-5, rtol=0)
    torch.testing.assert_close(drop_weakest(clip, snr_db=19), tone(10, 0.5), atol=1e-5, rtol=0)


def test_as_little_is_dropped_as_fools():
    model = InstrumentedModel(HearsTone(), head=nn.Identity(), bounds=Bounds(-1.0, 1.0)).eval()
    clip = tone(10, 0.5) + tone(30, 0.05) + tone(70, 0.1)
    batch = Batch(torch.stack([clip, tone(30, 0.5)]), torch.tensor([SIZE, SIZE]))
    objective = Identification(model, model.predict(batch))
    result = Kenansville()(objective, batch, generator=seeded())
    assert result.succeeded.tolist() == [True, False]
    expected = tone(10, 0.5) + tone(70, 0.1)  # the tone it listens to, and nothing stronger
    torch.testing.assert_close(result.batch.x[0], expected, atol=1e-4, rtol=0)
    assert torch.equal(result.batch.x[1], batch.x[1])  # more than half its energy would have to go
    assert result.gradients == 0


def test_spectrograms_are_refused(tiny_model):
    model = tiny_model.without_front_end()
    batch = Batch(torch.rand(1, 40, 50, generator=seeded()))
    with pytest.raises(AttackError, match=r"got input of shape \(1, 40, 50\), expected waveforms"):
        Kenansville()(Identification(model, model.predict(batch)), batch, generator=seeded())


def test_no_step_is_an_error():
    with pytest.raises(AttackError, match="steps is 0, expected ≥ 1"):
        Kenansville(steps=0)
