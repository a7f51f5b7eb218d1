"""The command serve: what its options make of the service; app.py is tested by itself."""

from __future__ import annotations

import pytest

from nip_audio.models.threshold import VerificationThreshold
from nip_audio.workflows.threshold import FittedThreshold

app = pytest.importorskip("nip_audio.service.app", reason="the extra serve is not installed")


@pytest.fixture
def serve(run, tmp_path, monkeypatch):
    """Run the command, and return the service that would have listened."""
    made = []
    monkeypatch.setattr(app, "listen", lambda application, host, port: made.append(application))
    monkeypatch.delenv("NIP_AUDIO_API_KEY", raising=False)

    def call(*options: object):
        made.clear()
        code, _, err = run("serve", "--voices", tmp_path / "voices.sqlite", *options)
        service = made[0].state.service if made else None
        if service is not None:
            service.desks.close()
            service.voices.close()
        return code, service, " ".join(err.split())

    return call


@pytest.fixture
def threshold(clean_folder, tmp_path) -> VerificationThreshold:
    import nip_audio

    fitted: FittedThreshold = nip_audio.fit_threshold(clean_folder, far=0.05, rounds=10)
    fitted.threshold.save(tmp_path / "my.threshold")
    return fitted.threshold


def test_by_default_there_is_no_gate_and_the_calibrations_threshold(serve):
    code, service, _ = serve()
    assert code == 0
    assert service.screener.gate is None
    assert service.threshold == service.screener.judge.calibration.verification_threshold


def test_a_threshold_file_decides_claims_and_what_the_gate_takes_for_one_voice(
    serve, threshold, tmp_path
):
    code, service, _ = serve("--threshold-file", tmp_path / "my.threshold")
    assert code == 0
    assert service.threshold.value == threshold.value
    assert service.screener.judge.calibration.verification_threshold == threshold.value
    code, _, err = serve("--threshold-file", tmp_path / "my.threshold", "--threshold", 0.5)
    assert code == 65
    assert "got --threshold-file and --threshold, expected one threshold" in err


def test_the_gate_is_strict_and_has_the_limits_of_a_file(serve, tmp_path):
    pytest.importorskip("silero_vad", reason="the extra gate is not installed")
    assert serve("--gate", "defaults")[1].screener.gate.strict
    (tmp_path / "gate.toml").write_text("[recording]\nleast_speech_s = 5.0\n")
    _, service, _ = serve("--gate", tmp_path / "gate.toml")
    assert service.screener.gate.limits.recording.least_speech_s == 5.0
    assert service.screener.measurer.speech
    code, _, err = serve("--gate", tmp_path / "none.toml")
    assert code == 65
    assert "is no file of at most" in err


def test_the_network_needs_a_key(serve):
    code, _, err = serve("--host", "0.0.0.0")
    assert code == 65
    assert "NIP_AUDIO_API_KEY is not set" in err
