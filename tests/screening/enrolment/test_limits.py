"""gate.toml: defaults, units, and one error for each mistake."""

from __future__ import annotations

import pytest

from nip_audio.errors import InputError
from nip_audio.screening.enrolment.limits import GateLimits, default_gate_text, read_gate


@pytest.fixture
def gate_file(tmp_path):
    def write(text):
        path = tmp_path / "gate.toml"
        path.write_text(text)
        return path

    return write


def test_the_printed_defaults_are_the_defaults(gate_file):
    assert read_gate(gate_file(default_gate_text())) == GateLimits.of(None)


def test_a_key_that_is_left_out_keeps_its_default(gate_file):
    limits = read_gate(gate_file("[recording]\nleast_speech_s = 5\n"))
    defaults = GateLimits.of(None)
    assert limits.recording.least_speech_s == 5.0
    assert limits.recording.least_snr_db == defaults.recording.least_snr_db
    assert limits.speaker == defaults.speaker


def test_every_key_is_explained():
    text = default_gate_text()
    for section in GateLimits.of(None).to_json().values():
        for key in section:
            line = next(i for i, one in enumerate(text.splitlines()) if f"{key} =" in one)
            assert text.splitlines()[line - 1].startswith("#"), key


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[record]\n", r"has \[record\], expected \[recording\] and \[speaker\]; did you mean"),
        ("recording = 1\n", r"recording is 1, expected a section"),
        ("[recording]\nleast_spech_s = 1\n", "no key least_spech_s; did you mean least_speech_s"),
        ("[recording]\nleast_speech_ms = 1\n", "its unit is seconds: write least_speech_s"),
        ("[recording]\nmost_clipped_percent = 1\n", "its unit is a share: write most_clipped_sh"),
        ("[recording]\nleast_speech = 1\n", "write least_speech_s, in seconds"),
        ('[recording]\nleast_speech_s = "3 s"\n', r"is '3 s', expected a number \(seconds\)"),
        ("[recording]\nleast_speech_s = true\n", "is True, expected a number"),
        ("[recording]\nleast_speech_s = -1\n", "is -1, expected seconds of 0 or more"),
        ("[recording]\nleast_snr_db = inf\n", "is inf, expected decibels that is finite"),
        ("[recording]\nleast_level_dbfs = 3\n", "expected decibels to full scale of at most 0"),
        ("[recording]\nmost_clipped_share = 5\n", "is 5, expected a share from 0 to 1"),
        ("[speaker]\nleast_recordings = 2.5\n", "is 2.5, expected a whole number"),
        ("[speaker]\nleast_recordings = 0\n", "is 0, expected a count of 1 or more"),
        ("[speaker]\nleast_cohesion = 2\n", "is 2, expected a cosine from -1 to 1"),
        ("[speaker\n", "cannot be read as TOML"),
    ],
)
def test_a_mistake_is_one_error(gate_file, text, error):
    with pytest.raises(InputError, match=error):
        read_gate(gate_file(text))


def test_a_file_that_is_missing_says_how_to_write_one(tmp_path):
    with pytest.raises(InputError, match="nip-audio gate --show > gate.toml"):
        read_gate(tmp_path / "gate.toml")


def test_who_adds_recordings_cannot_lower_the_limits(gate_file):
    path = gate_file("")
    with pytest.raises(InputError, match="lies in the folder that is screened"):
        read_gate(path, outside=path.parent)
