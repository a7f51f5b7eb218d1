"""Enrolled voices in a file."""

from __future__ import annotations

import pytest
import torch

from nip_audio.errors import EnrolmentError
from nip_audio.service.voices import Voices


@pytest.fixture
def voices(tmp_path) -> Voices:
    return Voices(tmp_path / "voices.sqlite", model_id="m" * 64)


def unit(*values: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float32), dim=0)


def test_a_voice_is_the_mean_of_its_recordings_and_outlives_the_process(voices, tmp_path):
    assert voices.add("ann", unit(1, 0), "a") == 1
    assert voices.add("ann", unit(0, 1), "b") == 2
    assert voices.add("bob", unit(1, 0), "c") == 1
    voices.close()
    again = Voices(tmp_path / "voices.sqlite", model_id="m" * 64)
    voice, recordings = again.voice("ann")
    torch.testing.assert_close(voice, unit(1, 1))
    assert recordings == 2
    assert again.speakers() == ["ann", "bob"]


def test_the_same_recording_counts_once_and_belongs_to_one_speaker(voices):
    voices.add("ann", unit(1, 0), "a")
    assert voices.add("ann", unit(1, 0), "a") == 1
    with pytest.raises(EnrolmentError, match="enrolled as another speaker's"):
        voices.add("bob", unit(1, 0), "a")
    assert voices.speakers() == ["ann"]


def test_a_speaker_is_forgotten(voices):
    voices.add("ann", unit(1, 0), "a")
    assert (voices.remove("ann"), voices.remove("ann")) == (1, 0)
    with pytest.raises(EnrolmentError, match="'ann' is not enrolled"):
        voices.voice("ann")


def test_voices_of_another_model_are_refused(voices, tmp_path):
    with pytest.raises(EnrolmentError, match="holds voices of model mmmm.*expected those of nnnn"):
        Voices(tmp_path / "voices.sqlite", model_id="n" * 64)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 50)
    before = path.read_bytes()
    with pytest.raises(EnrolmentError, match="cannot be used for enrolled voices"):
        Voices(path, model_id="m")
    assert path.read_bytes() == before
