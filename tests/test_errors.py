from __future__ import annotations

import pytest

from nip_audio import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_one_of_ours(name):
    kind = getattr(errors, name)
    assert issubclass(kind, UserWarning if name.endswith("Warning") else errors.NipAudioError)


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (errors.InputError, ValueError),
        (errors.LayerNotFoundError, KeyError),
        (errors.MissingDependencyError, ImportError),
        (errors.HashMismatchError, errors.StateError),
        (errors.UnsafeYamlError, errors.StateError),
    ],
)
def test_errors_can_be_caught_as_what_they_are(error, standard):
    assert issubclass(error, standard)


def test_layer_error_shows_plain_text():
    assert str(errors.LayerNotFoundError("no layer 'x'")) == "no layer 'x'"


def test_audio_error_keeps_its_parts():
    error = errors.AudioError("a.wav", code="empty", found="it has 0 bytes", remedy="record again")
    assert str(error) == "a.wav: it has 0 bytes; record again"
    assert (error.code, error.found, error.remedy) == ("empty", "it has 0 bytes", "record again")
