from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.core.state import State, save_state
from nip_audio.errors import EnrolmentError, OutputError, StateError
from nip_audio.models.cards import ModelCard
from nip_audio.models.enrolment import Enrolment, embed_audio, enrol
from nip_audio.models.pretrained import PretrainedModel

CARD = {"sample_rate_hz": 16000, "files": {"hyperparams.yaml": "0" * 64}}


@pytest.fixture
def model(embedding_model) -> PretrainedModel:
    return PretrainedModel(ModelCard(Path("nowhere"), CARD), embedding_model)


@pytest.fixture
def folder(tmp_path, write_sound, tone) -> Path:
    for speaker, hz in (("bob", 200), ("ann", 500)):
        for take in range(2):
            name = f"in/{speaker}/{take}.wav"
            write_sound(name, tone(0.7, frequency_hz=hz, seed=take))
    (tmp_path / "in" / "ann" / "bad.wav").write_bytes(b"no audio")
    return tmp_path / "in"


@pytest.fixture
def enrolment(model, folder) -> Enrolment:
    return enrol(model, walk_audio(folder), WaveformAdapter())


def test_voice_is_the_mean_of_the_speakers_unit_embeddings(model, folder, enrolment):
    assert enrolment.speakers == ("ann", "bob")
    adapter = WaveformAdapter()
    takes = [embed_audio(model, adapter.load(folder / "bob" / f"{i}.wav").samples) for i in (0, 1)]
    assert takes[0].norm() == pytest.approx(1.0)
    torch.testing.assert_close(enrolment.embeddings_of("bob"), torch.stack(takes))
    torch.testing.assert_close(enrolment.voice("bob"), (takes[0] + takes[1]) / 2)
    assert torch.equal(enrolment.voices[1], enrolment.voice("bob"))
    assert [len(enrolment.files[s]) for s in ("ann", "bob")] == [2, 2]


def test_bad_file_is_left_out_with_its_reason(enrolment):
    (failure,) = enrolment.failures
    assert failure.code == "not_audio"


def test_progress_is_told_of_every_recording(model, folder):
    seen = []
    enrol(model, walk_audio(folder), WaveformAdapter(), progress=lambda r: seen.append(r.id))
    assert seen == ["ann/0.wav", "ann/1.wav", "ann/bad.wav", "bob/0.wav", "bob/1.wav"]


def test_round_trip_bound_to_the_model(tmp_path, model, enrolment):
    enrolment.save(tmp_path / "e")
    got = Enrolment.load(tmp_path / "e", model_id=model.model_id)
    assert (got.speakers, got.files) == (enrolment.speakers, enrolment.files)
    assert torch.equal(got.voices, enrolment.voices)
    assert all(map(torch.equal, got.embeddings, enrolment.embeddings))
    with pytest.raises(StateError, match="make a new enrolment for this model"):
        Enrolment.load(tmp_path / "e", model_id="other")
    with pytest.raises(OutputError, match="exists already"):
        enrolment.save(tmp_path / "e")


def test_enrolment_of_mean_voices_alone_is_refused(tmp_path):
    """Early versions kept no single embeddings, which PLDA needs."""
    meta = {"speakers": ["ann"], "files": {"ann": ["0" * 64]}}
    save_state(tmp_path / "e", State("enrolment", "m", {"voices": torch.ones(1, 6)}, meta))
    with pytest.raises(StateError, match="one mean embedding per speaker only; enrol again"):
        Enrolment.load(tmp_path / "e", model_id="m")


def test_unknown_speaker_lists_near_ones(enrolment):
    with pytest.raises(EnrolmentError, match="'anne' is not enrolled; did you mean ann"):
        enrolment.voice("anne")


def test_recording_without_speaker_is_an_error(model, write_sound):
    with pytest.raises(EnrolmentError, match="is not in a speaker's folder"):
        enrol(model, [Recording("x", write_sound())], WaveformAdapter())


@pytest.mark.parametrize(
    ("recordings", "match"),
    [
        ([], "the folder has no audio"),
        (
            [Recording("x", Path("none.wav"), "ann")],
            "the first error is: none.wav: it does not exist",
        ),
    ],
)
def test_nothing_to_enrol_is_an_error(model, recordings, match):
    with pytest.raises(EnrolmentError, match=match):
        enrol(model, recordings, WaveformAdapter())


def test_long_silence_does_not_change_a_voice(pretrained, voice):
    clean = torch.from_numpy(np.concatenate([voice(1, 0), voice(1, 1)]))
    padded = torch.cat([torch.zeros(160_000), clean])
    assert torch.equal(embed_audio(pretrained, padded), embed_audio(pretrained, clean))
