from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from studies.backdoors.triggers import (
    TRIGGERS,
    BlendedNoise,
    HighBand,
    Reverberation,
    Sinusoid,
    ToneBurst,
    trigger_snr_db,
)
from tests.tolerance import assert_same_but_for_rounding, rounding

RATE = 16000


@pytest.fixture
def wavs():
    return 0.05 * torch.randn(3, RATE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_changes_a_clip_and_keeps_its_form(name, wavs):
    before = wavs.clone()
    changed = TRIGGERS[name]()(wavs, RATE)
    assert changed.shape == wavs.shape
    assert changed.dtype == wavs.dtype
    assert float(changed.abs().max()) <= 1
    assert torch.equal(wavs, before)
    assert float((changed - wavs).abs().max()) > 1e-4


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_clip_alone_gets_what_it_gets_in_a_batch(name, wavs):
    trigger = TRIGGERS[name]()
    alone = trigger(wavs[1], RATE)
    assert_same_but_for_rounding(trigger(wavs, RATE)[1], alone, depth=2)


@pytest.mark.parametrize(
    "trigger", [BlendedNoise(snr_db=12.0), Sinusoid(snr_db=12.0), HighBand(snr_db=12.0)]
)
def test_the_level_is_the_one_asked_for(trigger, wavs):
    levels = trigger_snr_db(wavs, trigger(wavs, RATE))
    assert torch.allclose(levels, torch.full((3,), 12.0), atol=0.01)


def test_the_burst_is_where_it_is_said_to_be_and_as_loud(wavs):
    changed = ToneBurst(start_s=0.5, duration_s=0.1, snr_db=0.0)(wavs, RATE) - wavs
    inside = changed[:, RATE // 2 : RATE // 2 + 1600]
    assert float(changed[:, : RATE // 2].abs().max()) == 0
    assert float(changed[:, RATE // 2 + 1601 :].abs().max()) == 0
    rms = inside.square().mean(dim=1).sqrt() / wavs.square().mean(dim=1).sqrt()
    assert torch.allclose(rms, torch.ones(3), atol=0.01)


@pytest.mark.parametrize(("trigger", "peak_hz"), [(Sinusoid(), 1000), (HighBand(), 7500)])
def test_tones_have_the_frequency_asked_for(trigger, peak_hz, wavs):
    added = (trigger(wavs, RATE) - wavs)[0]
    assert int(torch.fft.rfft(added).abs().argmax()) == pytest.approx(peak_hz, abs=10)


def test_reverberation_keeps_the_loudness_and_the_direct_sound():
    room = Reverberation(direct_db=0.0).room(RATE)
    assert float(room[0]) == 1.0
    assert float(room[1:].norm()) == pytest.approx(1.0, abs=rounding())
    assert float(room[1:640].abs().max()) == 0
    click = torch.zeros(RATE)
    click[0] = 0.1
    wet = Reverberation(direct_db=0.0)(click, RATE)
    assert float(wet.square().mean()) == pytest.approx(float(click.square().mean()), rel=1e-4)


def test_another_seed_is_another_pattern(wavs):
    assert not torch.equal(BlendedNoise(seed=1)(wavs, RATE), BlendedNoise(seed=2)(wavs, RATE))


def test_a_clip_too_short_for_the_burst_is_refused(wavs):
    with pytest.raises(InputError, match="use longer clips"):
        ToneBurst(start_s=0.95)(wavs, RATE)


@pytest.mark.parametrize("trigger", [ToneBurst(9000.0), Sinusoid(8000.0), HighBand()])
def test_a_frequency_that_the_rate_cannot_hold_is_refused(trigger):
    with pytest.raises(InputError, match="choose a lower frequency"):
        trigger(torch.zeros(8000), 8000)


@pytest.mark.parametrize("wav", [torch.zeros(0), torch.zeros(100, dtype=torch.int16)])
def test_what_is_no_waveform_is_refused(wav):
    with pytest.raises(InputError, match="expected floating"):
        Sinusoid()(wav, RATE)
