from __future__ import annotations

import sys

import pytest
import torch

from nip_audio.audio.quality import MAX_SNR_DB, snr_db, stoi
from nip_audio.errors import InputError, MissingDependencyError

RATE_HZ = 16000


@pytest.fixture
def clip(voice) -> torch.Tensor:
    return torch.from_numpy(voice(3, 1))


def with_noise(clip: torch.Tensor, ratio_db: float) -> torch.Tensor:
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    return clip + noise * clip.norm() / noise.norm() * 10 ** (-ratio_db / 20)


def intelligibility(clean: torch.Tensor, changed: torch.Tensor) -> float:
    return stoi(clean, changed, sample_rate_hz=RATE_HZ)


def test_snr_by_hand():
    # energies 25 and 0.25
    assert snr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20)
    # a change as large as the signal, and a larger one
    assert snr_db(torch.tensor([0.5]), torch.tensor([0.0])) == pytest.approx(0)
    assert snr_db(torch.tensor([0.5]), torch.tensor([5.5])) == pytest.approx(-20)


def test_snr_of_a_16_bit_step_is_not_lost_in_float32(clip):
    changed = clip.clone()
    changed[100] += 2**-15
    change = float(changed[100].double() - clip[100].double())
    expected = 10 * torch.log10(clip.double().square().sum() / change**2)
    assert snr_db(clip, changed) == pytest.approx(float(expected))


def test_no_change_has_the_largest_ratio(clip):
    assert snr_db(clip, clip.clone()) == MAX_SNR_DB
    assert snr_db(torch.tensor([1.0]), torch.tensor([1.0 + 1e-11]).double()) <= MAX_SNR_DB


def test_unchanged_speech_is_understood(clip):
    assert intelligibility(clip, clip) == pytest.approx(1.0)


def test_loudness_does_not_matter(clip):
    assert intelligibility(clip, 0.1 * clip) == pytest.approx(1.0, abs=1e-6)


def test_intelligibility_falls_with_noise(clip):
    found = [intelligibility(clip, with_noise(clip, ratio)) for ratio in (40, 10, 0, -20)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.98
    assert found[-1] < 0.6
    assert found[0] - found[-1] > 0.4


def test_what_was_deleted_is_not_understood(clip):
    assert intelligibility(clip, torch.zeros_like(clip)) == 0.0


def test_the_rate_is_heeded(clip):
    noisy = with_noise(clip, 0)
    assert stoi(clip, noisy, sample_rate_hz=8000) != pytest.approx(
        stoi(clip, noisy, sample_rate_hz=16000), abs=1e-3
    )


def test_inputs_and_their_gradients_are_left_alone(clip):
    changed = with_noise(clip, 20).requires_grad_(True)
    kept = clip.clone()
    assert isinstance(snr_db(clip, changed), float)
    assert isinstance(intelligibility(clip, changed), float)
    assert torch.equal(clip, kept)
    assert changed.grad is None


@pytest.mark.parametrize("measure", [snr_db, intelligibility])
class TestBothRefuse:
    def test_other_shapes(self, measure, clip):
        with pytest.raises(InputError, match=r"shapes \(16000,\) and \(15999,\), expected \(N,\)"):
            measure(clip, clip[1:])
        with pytest.raises(InputError, match="one clip at a time"):
            measure(clip[None], clip[None])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_what_is_not_finite(self, measure, clip, bad):
        broken = clip.clone()
        broken[5] = bad
        with pytest.raises(InputError, match="NaN or infinite"):
            measure(clip, broken)
        with pytest.raises(InputError, match="NaN or infinite"):
            measure(broken, clip)

    def test_silence(self, measure, clip):
        with pytest.raises(InputError, match="clean clip is silent"):
            measure(torch.zeros_like(clip), clip)
        with pytest.raises(InputError, match="clean clip is silent"):
            measure(clip[:0], clip[:0])


@pytest.mark.parametrize("size", [1, 300, 4800, 6400])
def test_too_short_for_intelligibility_is_an_error_not_a_low_value(clip, size):
    with pytest.raises(InputError, match=rf"got {size / RATE_HZ:.2f} s, expected more than 0.4 s"):
        intelligibility(clip[:size], clip[:size])


def test_mostly_silence_is_too_short_as_well(clip):
    clean = torch.zeros(RATE_HZ)
    clean[:4000] = clip[:4000]
    with pytest.raises(InputError, match="of speech without pauses"):
        intelligibility(clean, clean)


def test_without_pystoi_the_remedy_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystoi", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[quality\]'"):
        intelligibility(clip, clip)
    assert snr_db(clip, clip) == MAX_SNR_DB
