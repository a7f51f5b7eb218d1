from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, read_audio, to_16_bits
from nip_audio.audio.resynthesis import ROUNDS
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.models.identification import identify
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization
from nip_audio.purifiers.registry import make_purifier
from nip_audio.screening.judge import Judge
from nip_audio.workflows.files import PlannedFile
from nip_audio.workflows.purify_files import FilePurifier
from nip_audio.workflows.recordings import purify_audio
from tests.tolerance import rounding


class Shift(Purifier):
    """Adds one number everywhere, to the samples or to the spectrogram."""

    differentiable = True
    random = False

    def __init__(self, level, amount):
        self.level = level
        self.amount = amount

    @property
    def name(self):
        return "shift"

    def settings(self):
        return {"name": "shift", "amount": self.amount}

    def purify(self, batch, *, generator):
        low = -1.0 if self.level == "raw" else 0.0
        return batch.with_x((batch.x + self.amount).clamp(low, 1.0))


@pytest.fixture
def audio(write_sound, voice) -> Audio:
    return read_audio(write_sound("one.wav", voice(2, 3), subtype="PCM_16"))


@pytest.fixture
def noise() -> GaussianNoise:
    return GaussianNoise(snr_db=20.0, bounds=Bounds(-1.0, 1.0))


@pytest.fixture
def embedder(pretrained) -> PretrainedModel:
    model = pretrained.model
    bare = InstrumentedModel(
        model.network,
        front_end=model.front_end,
        bounds=model.bounds,
        input_bounds=model.input_bounds,
    )
    return replace(pretrained, model=bare.eval())


def test_what_works_on_samples_gives_the_waveform_directly(pretrained, audio, noise):
    result = purify_audio(pretrained, noise, audio, seed=0)
    assert result.snr_db == pytest.approx(20.0, abs=0.1)
    assert result.samples.shape == audio.samples.shape
    assert torch.equal(result.samples, to_16_bits(result.samples))
    assert (result.rounds, result.change_asked, result.change_missed) == (None, None, None)
    for heard, samples in ((result.before, audio.samples), (result.after, result.samples)):
        (best,) = identify(pretrained, samples, top=1)
        assert (heard.label, heard.score) == (best.speaker, best.score)
        assert heard.verdict is None
    assert result.speaker_changed == (result.before.label != result.after.label)
    assert 0 < result.cosine < 1


def test_what_works_on_the_spectrogram_comes_back_as_sound(pretrained, audio):
    result = purify_audio(pretrained, Shift("input", -0.06), audio, seed=0)
    louder = result.samples.norm() / audio.samples.norm()
    assert float(20 * louder.log10()) == pytest.approx(-6.0, abs=0.1)
    assert result.rounds == ROUNDS
    assert result.change_asked == pytest.approx(0.06, abs=0.001)
    assert result.change_missed < 0.001
    assert result.spectrogram_after.shape == result.spectrogram_before.shape
    own = pretrained.model.to_input(Batch(result.samples[None])).x[0]
    torch.testing.assert_close(result.spectrogram_after, own)


@pytest.mark.parametrize("level", ["raw", "input"])
def test_a_purifier_that_changes_nothing_leaves_every_bit(pretrained, audio, level):
    result = purify_audio(pretrained, Shift(level, 0.0), audio, seed=0)
    assert torch.equal(result.samples, audio.samples)
    assert result.snr_db is None
    assert result.speaker_changed is False
    assert result.before == result.after
    assert result.cosine == pytest.approx(1.0, abs=rounding())


def test_samples_that_reach_full_scale_are_counted(pretrained, audio):
    result = purify_audio(pretrained, Shift("raw", 0.9), audio, seed=0)
    expected = int((audio.samples + 0.9 >= 32766.5 / 32768).sum())
    assert result.clipped_samples == expected > 0


def test_the_seed_and_the_content_decide_and_not_the_name(pretrained, audio, noise):
    renamed = replace(audio, sha256="other", encoding="FLAC/PCM_16")
    first, same, other = (
        purify_audio(pretrained, noise, a, seed=s).samples
        for a, s in ((audio, 0), (renamed, 0), (audio, 1))
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_an_embedding_model_has_a_cosine_and_no_names(embedder, audio, noise):
    result = purify_audio(embedder, noise, audio, seed=0)
    assert result.before.label is result.after.label is result.speaker_changed is None
    assert 0 < result.cosine < 1
    assert result.to_json()["before"]["score"] is None


def test_the_detector_judges_both(pretrained, audio, noise, calibration):
    result = purify_audio(pretrained, noise, audio, seed=0, judge=Judge(calibration, 0.05))
    for heard in (result.before, result.after):
        assert heard.verdict in ("clean", "adversarial", "out_of_domain")
        assert heard.distance_threshold == calibration.threshold(0.05)
    assert result.before.distance != result.after.distance


def test_the_verdict_of_unchanged_audio_is_unchanged(pretrained, audio, calibration, write_sound):
    """The detector's noise comes from the bytes of a file, and those of its copy are others."""
    copy = write_sound("two.flac", audio.samples.numpy())
    judge = Judge(calibration, 0.05)
    worker = FilePurifier(pretrained, Shift("raw", 0.0), WaveformAdapter(), judge=judge)
    done = worker.purify(PlannedFile(copy, copy.with_name("out.wav")))
    assert done.written_sha256 != done.original.sha256
    assert done.result.before == done.result.after


def test_json_is_plain_and_rounded(pretrained, audio, noise):
    result = purify_audio(pretrained, noise, audio, seed=7)
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert value["purifier"] == {"name": "noise", "snr_db": 20.0}
    assert value["seed"] == 7
    assert value["model_id"] == pretrained.model_id
    assert value["snr_db"] == round(result.snr_db, 6)
    assert "samples" not in value


@pytest.mark.parametrize(
    "name",
    ["median", "vorbis", "random-crop", "spatial-smoothing", "bit-depth", "jpeg", "anti-adversary"],
)
def test_every_kind_of_purifier_comes_out_as_audio(pretrained, audio, name):
    purifier = make_purifier(name, model=pretrained.model)
    result = purify_audio(pretrained, purifier, audio, seed=0)
    assert result.samples.shape == audio.samples.shape
    assert not result.samples.requires_grad
    assert float(result.samples.abs().max()) <= 1.0
    assert result.snr_db > -5


def test_another_rate_is_refused(pretrained, audio, noise):
    with pytest.raises(InputError, match="at 8000 Hz, this model expects 16000 Hz"):
        purify_audio(pretrained, noise, replace(audio, sample_rate_hz=8000), seed=0)


def test_a_spectrogram_of_another_kind_has_no_way_back(pretrained, audio):
    class Half(torch.nn.Module):
        def forward(self, x, lengths):
            return x[:, None, ::2], lengths

    other = InstrumentedModel(
        pretrained.model.network, front_end=Half(), bounds=pretrained.model.bounds
    )
    purifier = Quantization(level="input", bounds=Bounds(0.0, 1.0))
    with pytest.raises(InputError, match="comes from Half, expected a spectrogram"):
        purify_audio(replace(pretrained, model=other), purifier, audio, seed=0)
