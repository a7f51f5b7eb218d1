from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.training.equalizer import RandomEqualizer


def test_keeps_rms_and_phase_and_changes_the_spectrum_smoothly():
    torch.manual_seed(0)
    x = torch.randn(3, 16000)
    y = RandomEqualizer(gain_db=6.0)(x)
    torch.testing.assert_close(y.square().mean(dim=1), x.square().mean(dim=1))
    gain = torch.fft.rfft(y) / torch.fft.rfft(x)
    inner = gain[:, 1:-1]  # the ends of a real spectrum have no phase
    assert inner.imag.abs().max() < 1e-3 * inner.abs().max()
    assert inner.real.min() > 0
    decibels = 20 * inner.real.log10()
    assert decibels.std(dim=1).min() > 1  # something happened to every item
    assert (decibels[0] - decibels[1]).abs().max() > 1  # and not the same
    assert decibels.diff(dim=1).abs().max() < 0.2  # in dB a Hz: a curve, not a comb


def test_silence_stays_silence_and_draws_follow_the_global_seed():
    assert RandomEqualizer()(torch.zeros(2, 400)).eq(0).all()
    x = torch.randn(2, 400)
    torch.manual_seed(1)
    first = RandomEqualizer()(x)
    torch.manual_seed(1)
    assert RandomEqualizer()(x).equal(first)


@pytest.mark.parametrize("options", [{"points": 1}, {"gain_db": 0.0}])
def test_refuses(options):
    with pytest.raises(InputError, match="expected at least 2 points and more than 0"):
        RandomEqualizer(**options)
