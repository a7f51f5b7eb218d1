from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.errors import InputError
from nip_audio.models.cards import ModelCard
from nip_audio.models.enrolment import embed_audio, enrol, verify
from nip_audio.models.plda_recordings import fit_plda_to_recordings
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.pretrained import PretrainedModel

CARD = {"sample_rate_hz": 16000, "files": {"hyperparams.yaml": "0" * 64}}
ADAPTER = WaveformAdapter()


@pytest.fixture
def model(embedding_model) -> PretrainedModel:
    return PretrainedModel(ModelCard(Path("nowhere"), CARD), embedding_model)


@pytest.fixture
def world(tmp_path, write_sound, voice) -> Path:
    """Five speakers, three takes each to fit on, and two others each."""
    for speaker in range(5):
        for take in range(5):
            folder = "in" if take < 3 else "out"
            write_sound(f"{folder}/s{speaker}/{take}.wav", voice(speaker, take))
    return tmp_path


def test_equals_the_fit_to_the_recordings_embeddings(model, world):
    recordings = list(walk_audio(world / "in"))
    seen = []
    got = fit_plda_to_recordings(
        model, recordings, ADAPTER, rank=2, progress=lambda r: seen.append(r.id)
    )
    audios = [ADAPTER.load(r.path) for r in recordings]
    embeddings = torch.stack([embed_audio(model, a.samples) for a in audios])
    expected = fit_plda(embeddings, [r.speaker for r in recordings], model_id="m", rank=2)
    torch.testing.assert_close(got.residual, expected.residual)
    assert got.model_id == model.model_id
    assert (got.n_embeddings, got.n_speakers, got.threshold) == (15, 5, None)
    assert got.provenance == tuple(sorted(a.content_sha256 for a in audios))
    assert seen == [r.id for r in recordings]


def test_crops_multiply_embeddings_and_short_files_are_left_out(model, world, write_sound, voice):
    short = write_sound("in/s0/short.wav", voice(0, 9, 0.6))
    got = fit_plda_to_recordings(model, walk_audio(world / "in"), ADAPTER, crop_s=0.3)
    assert got.n_embeddings == 15 * 3 + 2
    got = fit_plda_to_recordings(model, walk_audio(world / "in"), ADAPTER, crop_s=0.7, lda_dim=3)
    assert got.n_embeddings == 15
    (failure,) = got.failures
    assert failure.code == "too_short"
    assert str(failure).startswith(f"{short}: it lasts 0.60 s, less than one clip of 0.7 s; use")


def test_threshold_of_other_recordings_embedded_whole(model, world):
    fit, others = list(walk_audio(world / "in")), list(walk_audio(world / "out"))
    got = fit_plda_to_recordings(model, fit, ADAPTER, crop_s=0.3, calibration=others)
    audios = [ADAPTER.load(r.path) for r in others]
    embeddings = torch.stack([embed_audio(model, a.samples) for a in audios])
    expected = got.calibrate(embeddings, [r.speaker for r in others]).threshold
    assert got.threshold == pytest.approx(expected)
    assert len(got.provenance) == 25


def test_what_it_was_fitted_on_gives_no_threshold(model, world):
    recordings = list(walk_audio(world / "in"))
    with pytest.raises(InputError, match="0 recordings of 0 speakers for the threshold"):
        fit_plda_to_recordings(model, recordings, ADAPTER, calibration=recordings)
    others = [*walk_audio(world / "out"), recordings[0]]
    got = fit_plda_to_recordings(model, recordings, ADAPTER, calibration=others)
    (failure,) = got.failures
    assert (failure.code, failure.remedy) == (
        "duplicate",
        "use different recordings, also for calibration",
    )


def test_verification_by_ratio(model, world):
    plda = fit_plda_to_recordings(model, walk_audio(world / "in"), ADAPTER)
    enrolment = enrol(model, walk_audio(world / "in"), ADAPTER)
    audio = ADAPTER.load(world / "out/s2/3.wav")
    result = verify(model, audio, enrolment, "s2", threshold=0.5, plda=plda)
    embedding = embed_audio(model, audio.samples)[None]
    expected = float(plda.score(embedding, [enrolment.embeddings_of("s2")]))
    assert result.to_json() == {
        "llr": round(expected, 6),
        "threshold": 0.5,
        "accepted": expected >= 0.5,
    }
    by_cosine = verify(model, audio, enrolment, "s2", threshold=0.5).to_json()
    assert list(by_cosine) == ["cosine", "threshold", "accepted"]


@pytest.mark.parametrize(
    ("recordings", "match"),
    [
        ([], "no recording could be embedded; pass some"),
        ([Recording("x", Path("no.wav"), "a")], "the first error is: no.wav: it does not exist"),
        ([Recording("x", Path("x.wav"))], "x.wav is not in a speaker's folder; put each"),
    ],
)
def test_nothing_to_fit_to_is_an_error(model, recordings, match):
    with pytest.raises(InputError, match=match):
        fit_plda_to_recordings(model, recordings, ADAPTER)
