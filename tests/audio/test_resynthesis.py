from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from nip_audio.audio.features import LogMel
from nip_audio.audio.io import read_audio
from nip_audio.audio.resynthesis import LARGEST_GAIN_DB, resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.models.pretrained import load_pretrained
from tests.tolerance import rounding

FRONT_END = LogMel()
RANGE_DB = FRONT_END.high_db - FRONT_END.low_db


@dataclass(frozen=True)
class Case:
    wav: torch.Tensor
    before: torch.Tensor


def case_of(wav: torch.Tensor) -> Case:
    return Case(wav, FRONT_END(wav[None])[0][0])


@pytest.fixture
def speech(voice) -> Case:
    return case_of(torch.from_numpy(voice(1, 0)))


@pytest.fixture
def hiss(generator) -> Case:
    return case_of(0.05 * torch.randn(16123, generator=generator))


def smooth_noise(shape: torch.Size, generator: torch.Generator, largest: float) -> torch.Tensor:
    drawn = torch.randn(shape, generator=generator)[None, None]
    drawn = torch.nn.functional.avg_pool2d(drawn, (5, 9), stride=1, padding=(2, 4))[0, 0]
    return drawn * (largest / drawn.abs().max())


def level_db(wav: torch.Tensor) -> float:
    return float(20 * wav.norm().log10())


def test_no_change_is_the_very_recording(speech):
    assert (
        resynthesize(speech.wav, speech.before, speech.before.clone(), FRONT_END).samples
        is speech.wav
    )


@pytest.mark.parametrize("size", [1, 159, 160, 399, 8000, 8001, 8159])
def test_analysis_and_synthesis_fit_together_at_any_length(generator, size):
    """A change too small to matter goes through both: window, frames and edges line up."""
    case = case_of(0.1 * torch.randn(size, generator=generator))
    result = resynthesize(case.wav, case.before, case.before + 1e-6, FRONT_END, rounds=0)
    torch.testing.assert_close(result.samples, case.wav, rtol=1e-4, atol=rounding(2))
    assert result.samples is not case.wav


@pytest.mark.parametrize("change_db", [-6.0, 6.0])
def test_the_same_change_everywhere_is_a_gain(hiss, change_db):
    after = hiss.before + change_db / RANGE_DB
    result = resynthesize(hiss.wav, hiss.before, after, FRONT_END).samples
    torch.testing.assert_close(result, hiss.wav * 10 ** (change_db / 20), rtol=1e-3, atol=1e-5)


def test_one_band_and_one_stretch_are_changed_alone(hiss):
    after = hiss.before.clone()
    after[20:25, 40:60] -= 20 / RANGE_DB
    result = resynthesize(hiss.wav, hiss.before, after, FRONT_END).samples
    own = FRONT_END(result[None])[0][0]
    assert float((own - after)[22, 45:55].abs().max()) < 3 / RANGE_DB
    torch.testing.assert_close(result[: 35 * 160], hiss.wav[: 35 * 160], rtol=0, atol=1e-4)
    torch.testing.assert_close(own[:15], hiss.before[:15], rtol=0, atol=1 / RANGE_DB)


def test_the_phase_is_kept(speech, generator):
    after = speech.before + smooth_noise(speech.before.shape, generator, 8 / 255)
    result = resynthesize(speech.wav, speech.before, after, FRONT_END, rounds=0).samples
    window = torch.hamming_window(400)
    first, second = (
        torch.stft(w, 400, 160, window=window, pad_mode="constant", return_complex=True)
        for w in (speech.wav, result)
    )
    loud = first.abs() > 0.1 * first.abs().max()
    turned = (second[loud] / first[loud]).angle().abs()
    assert float(turned.mean()) < 0.02
    assert float(turned.max()) < 0.4


@pytest.mark.parametrize("kind", ["smooth", "white", "coarse"])
def test_the_residual_falls_with_rounds(speech, generator, kind):
    shape = speech.before.shape
    after = {
        "smooth": speech.before + smooth_noise(shape, generator, 8 / 255),
        "white": speech.before + torch.randn(shape, generator=generator).sign() * 8 / 255,
        "coarse": (speech.before * 15).round() / 15,
    }[kind].clamp(0, 1)
    result = resynthesize(speech.wav, speech.before, after, FRONT_END, rounds=4)
    start, first, *later = result.residuals
    assert start == pytest.approx(float((after - speech.before).abs().mean()), rel=rounding())
    assert first < start
    assert later[0] < first
    assert later == sorted(later, reverse=True)
    own = FRONT_END(result.samples[None])[0][0]
    torch.testing.assert_close(result.spectrogram, own)
    assert float((own - after).abs().mean()) == pytest.approx(later[-1], rel=1e-4)
    if kind == "smooth":
        assert later[-1] < 0.4 * start


def test_what_was_below_the_range_is_lifted_no_further_than_the_largest_gain():
    """Near silence is asked to be as loud as speech."""
    wav = torch.full((8000,), 1e-6) * torch.tensor([1.0, -1.0]).repeat(4000)
    case = case_of(wav)
    after = torch.full_like(case.before, 0.9)
    result = resynthesize(wav, case.before, after, FRONT_END, rounds=5).samples
    assert level_db(result) - level_db(wav) == pytest.approx(LARGEST_GAIN_DB, abs=0.1)


def test_samples_stay_within_full_scale(hiss):
    wav = hiss.wav * (0.9 / hiss.wav.abs().max())
    case = case_of(wav)
    result = resynthesize(wav, case.before, (case.before + 0.1).clamp(max=1), FRONT_END).samples
    assert float(result.abs().max()) == 1.0


def test_digital_silence_stays_silence():
    case = case_of(torch.zeros(8000))
    result = resynthesize(case.wav, case.before, case.before + 0.2, FRONT_END).samples
    assert not result.any()


def test_inputs_are_not_modified_and_the_dtype_is_kept(speech, generator):
    after = speech.before + smooth_noise(speech.before.shape, generator, 8 / 255)
    copies = [t.clone() for t in (speech.wav, speech.before, after)]
    result = resynthesize(speech.wav.double(), speech.before, after, FRONT_END).samples
    assert result.dtype == torch.float64
    for tensor, copy in zip((speech.wav, speech.before, after), copies, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"wav": torch.zeros(2, 800)}, "one recording at a time"),
        ({"wav": torch.zeros(0)}, "one recording at a time"),
        ({"wav": torch.zeros(8000, dtype=torch.int16)}, "one recording at a time"),
        ({"after": torch.zeros(40, 50)}, "compute them from this recording"),
        ({"before": torch.zeros(64, 51)}, "compute them from this recording"),
        ({"after": torch.full((40, 51), torch.nan)}, "NaN or infinite"),
        ({"rounds": -1}, "rounds is -1"),
    ],
)
def test_refuses(change, text):
    given = {
        "wav": torch.zeros(8000),
        "before": torch.zeros(40, 51),
        "after": torch.zeros(40, 51),
        "front_end": FRONT_END,
    } | change
    with pytest.raises(InputError, match=text):
        resynthesize(**given)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_other_rates(generator, rate_hz):
    front_end = LogMel(rate_hz, n_mels=24)
    wav = 0.1 * torch.randn(rate_hz + 37, generator=generator)
    before = front_end(wav[None])[0][0]
    after = before + smooth_noise(before.shape, generator, 8 / 255)
    result = resynthesize(wav, before, after, front_end)
    assert result.samples.shape == wav.shape
    assert result.residuals[-1] < 0.4 * result.residuals[0]


def test_real_speech_keeps_its_speaker_and_comes_near_to_what_was_asked(data_root, generator):
    """The model's decision survives harmless smooth noise and the way back to sound."""
    files = sorted((data_root / "LibriSpeech" / "test-clean").rglob("*.flac"))
    assert files, "the data root has no test-clean"
    pretrained = load_pretrained("resnet34-libri30")
    model, front_end = pretrained.model, pretrained.model.front_end
    for file in files[:: max(1, len(files) // 3)][:3]:
        wav = read_audio(file).samples
        before = model.to_input(Batch(wav[None])).x[0]
        after = (before + smooth_noise(before.shape, generator, 8 / 255)).clamp(0, 1)
        result = resynthesize(wav, before, after, front_end)
        own = front_end(result.samples[None])[0][0]
        assert float((own - after).abs().mean()) < 0.5 * float((before - after).abs().mean())
        decisions = [int(model.predict(Batch(w[None]))) for w in (wav, result.samples)]
        assert decisions[0] == decisions[1]
