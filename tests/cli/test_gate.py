"""The command gate: the defaults with comments, and a file that is checked."""

from __future__ import annotations

import json
import tomllib

from nip_audio.screening.enrolment.limits import GateLimits


def test_the_defaults_are_printed_with_comments(run, tmp_path):
    code, out, _ = run("gate", "--show")
    assert code == 0
    assert "# Seconds of speech without pauses" in out
    assert tomllib.loads(out)["recording"]["least_speech_s"] == 2.0
    path = tmp_path / "gate.toml"
    path.write_text(out)
    code, out, _ = run("gate", path)
    assert (code, "can be used" in out) == (0, True)


def test_json_has_all_limits(run, tmp_path):
    assert json.loads(run("gate", "--show", "--json")[1]) == GateLimits.of(None).to_json()
    path = tmp_path / "gate.toml"
    path.write_text("[speaker]\nleast_recordings = 5\n")
    assert json.loads(run("gate", path, "--json")[1])["speaker"]["least_recordings"] == 5


def test_a_mistake_is_refused(run, tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text("[speaker]\nleast_files = 5\n")
    code, _, err = run("gate", path)
    assert code == 65
    assert "has no key least_files" in " ".join(err.split())
    assert run("gate")[0] == 65
