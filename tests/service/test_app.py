"""What the service answers; the processes behind it are replaced, but for the last tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.audio import adapter, manifest
from nip_audio.audio.manifest import Recording
from nip_audio.audio.windows import sound_of
from nip_audio.errors import InputError, OutputError, WorkerError
from nip_audio.models.enrolment import embed_audio
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.operating_point import ErrorCurve
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.screening import sounds
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.records import Finding
from nip_audio.service import desk
from nip_audio.service.app import Limits, Service, build_app, listen
from nip_audio.service.desk import Desks, Refused
from nip_audio.service.voices import Voices

testing = pytest.importorskip("fastapi.testclient", reason="the extra serve is not installed")


@dataclass
class Here:
    """Works in this process."""

    screener: object
    closed: bool = False
    crash: bool = False
    asked: list[str] = field(default_factory=list)

    async def ask(self, function, *given):
        self.asked.append(function.__name__)
        if self.crash and given:
            raise WorkerError("a worker process crashed; send the recording again, alone")
        desk._measurer, desk._purifier = self.screener.measurer, None
        return function(*given)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def service(screener, tmp_path) -> Service:
    voices = Voices(tmp_path / "voices.sqlite", model_id=screener.pretrained.model_id)
    return Service(screener, Here(screener), voices, threshold=0.5)


@pytest.fixture
def client(service) -> Iterator:
    with testing.TestClient(build_app(service)) as client:
        yield client


def sound(folder: Path, voice, speaker: int, take: int, seconds: float = 2.0) -> bytes:
    path = folder / "sent.wav"
    soundfile.write(path, voice(speaker, take, seconds), 16000)
    return path.read_bytes()


@pytest.fixture
def ann(tmp_path, voice) -> bytes:
    return sound(tmp_path, voice, 0, 0)


@pytest.fixture
def bob(tmp_path, voice) -> bytes:
    return sound(tmp_path, voice, 5, 0)


def error(answer) -> tuple[int, str]:
    told = answer.json()["error"]
    assert told["found"]
    assert told["remedy"]
    return answer.status_code, told["code"]


def test_a_recording_is_judged_as_detect_judges_it(client, service, ann, tmp_path):
    answer = client.post("/v1/screen", params={"id": "ann-1"}, content=ann)
    assert answer.status_code == 200
    (tmp_path / "ann.wav").write_bytes(ann)
    (record,) = service.screener.judge_files([Recording("ann-1", tmp_path / "ann.wav")])
    assert answer.json() == json.loads(record.to_line())


def test_voices_are_enrolled_verified_listed_and_forgotten(client, ann, bob):
    first = client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert (first.status_code, first.json()["recordings"]) == (200, 1)
    own = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()
    assert own["accepted"]
    assert own["score"] == pytest.approx(1.0, abs=1e-4)
    other = client.post("/v1/verify", params={"speaker": "ann"}, content=bob).json()
    assert other["score"] < own["score"]
    assert other["accepted"] == (other["score"] >= 0.5)
    assert client.get("/v1/speakers").json() == ["ann"]
    assert client.delete("/v1/speakers/ann").json() == {"recordings": 1}
    assert error(client.delete("/v1/speakers/ann")) == (404, "not_enrolled")
    assert error(client.post("/v1/verify", params={"speaker": "ann"}, content=ann)) == (
        404,
        "not_enrolled",
    )


def test_nobody_is_told_who_else_is_enrolled(client, ann):
    client.post("/v1/enroll", params={"speaker": "annabel"}, content=ann)
    answer = client.post("/v1/verify", params={"speaker": "annabell"}, content=ann)
    assert "annabel'" not in answer.text.replace("'annabell'", "")


def test_one_recording_is_not_two_people(client, ann):
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    again = client.post("/v1/enroll", params={"speaker": "bob"}, content=ann)
    assert error(again) == (409, "duplicate")


def test_what_was_found_in_a_recording_keeps_it_out_unless_forced(client, service, ann):
    service.screener = _finding_everything(service.screener)
    refused = client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert error(refused) == (409, "adversarial")
    assert refused.json()["record"]["verdict"] == "adversarial"
    assert service.voices.speakers() == []
    forced = client.post("/v1/enroll", params={"speaker": "ann", "force": True}, content=ann)
    assert forced.status_code == 200
    claim = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()
    assert claim["score"] == pytest.approx(1.0, abs=1e-4)
    assert not claim["accepted"]  # close, and flagged


def _finding_everything(screener):
    class Suspicious:
        calibration = screener.judge.calibration

        def judge(self, measured, *, q_value=None):
            record = screener.judge.judge(measured, q_value=q_value)
            found = (Finding.of("adversarial", "it looks attacked"),)
            return replace(record, verdict="adversarial", findings=found)

    return replace(screener, judge=Suspicious())


@pytest.mark.parametrize("route", ["screen", "enroll?speaker=a", "purify"])
@pytest.mark.parametrize("body", [b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_what_is_no_recording_is_told_and_leaves_nothing(client, service, route, body, monkeypatch):
    monkeypatch.setattr(desk, "shipped_purifier", lambda pretrained: None)
    monkeypatch.setattr(type(service.screener.pretrained.card), "purifier_path", Path("x"))
    status, code = error(client.post(f"/v1/{route}", content=body))
    assert status == 422
    assert code in ("empty", "not_audio", "unreadable", "damaged")
    assert service.under_way == 0
    assert not list(client.app.state.folder.iterdir())


def test_a_model_without_a_purifier_or_threshold_says_so(client, service, ann, monkeypatch):
    monkeypatch.setattr(type(service.screener.pretrained.card), "purifier_path", None)
    assert error(client.post("/v1/purify", content=ann)) == (501, "no_purifier")
    service.threshold = None
    assert error(client.post("/v1/verify", params={"speaker": "a"}, content=ann)) == (
        501,
        "no_threshold",
    )


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client, service, ann):
    service.limits = Limits(max_bytes=1000)
    assert error(client.post("/v1/screen", content=ann)) == (413, "too_large")
    assert "measure" not in service.desks.asked
    assert not list(client.app.state.folder.iterdir())


def test_a_full_queue_refuses_and_says_when_to_come_again(client, service, ann):
    service.limits = Limits(queue=1)
    service.under_way = 1
    answer = client.post("/v1/screen", content=ann)
    assert error(answer) == (429, "busy")
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/v1/health").json()["under_way"] == 1
    service.under_way = 0
    assert client.post("/v1/screen", content=ann).status_code == 200
    assert service.under_way == 0


def test_a_crash_is_an_answer(client, service, ann):
    service.desks.crash = True
    answer = client.post("/v1/screen", content=ann)
    assert error(answer) == (503, "crashed")
    assert "retry-after" in answer.headers
    assert service.under_way == 0


def test_a_key_opens_everything_but_health_and_metrics(client, service, ann):
    service.key = "secret"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
        assert error(client.post("/v1/screen", content=ann, headers=headers)) == (401, "no_key")
        assert error(client.get("/v1/speakers", headers=headers)) == (401, "no_key")
        assert error(client.delete("/v1/speakers/a", headers=headers)) == (401, "no_key")
    assert "measure" not in service.desks.asked
    right = {"authorization": "Bearer secret"}
    assert client.post("/v1/screen", content=ann, headers=right).status_code == 200
    assert client.get("/v1/health").status_code == client.get("/v1/metrics").status_code == 200


def test_metrics_count_by_route_and_hold_no_names(client, ann):
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    client.post("/v1/screen", content=b"")
    client.delete("/v1/speakers/somebody")
    client.get("/anything/else")
    told = client.get("/v1/metrics").text
    assert 'nip_audio_requests_total{route="/v1/enroll",status="200"} 1.0' in told
    assert 'nip_audio_requests_total{route="/v1/screen",status="422"} 1.0' in told
    assert 'route="/v1/speakers/{speaker}",status="404"' in told
    assert "nip_audio_under_way 0.0" in told
    assert "somebody" not in told
    assert "anything" not in told
    assert "ann" not in told


def test_the_description_says_that_bodies_are_audio(client):
    paths = client.get("/openapi.json").json()["paths"]
    for route in ("screen", "enroll", "verify", "purify"):
        assert "audio/*" in paths[f"/v1/{route}"]["post"]["requestBody"]["content"]


def test_it_closes_what_it_opened(service):
    with testing.TestClient(build_app(service)) as client:
        folder = client.app.state.folder
        assert folder.is_dir()
    assert service.desks.closed
    assert not folder.exists()


@pytest.mark.parametrize("name", ["max_bytes", "queue"])
def test_limits_that_admit_nothing_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
        Limits(**{name: 0})


def test_a_purified_copy_is_a_recording(service, ann, tmp_path, monkeypatch):
    done = desk.Purified(12.5, 0.9)

    def purify(path: Path, out: Path):
        soundfile.write(out, torch.zeros(160).numpy(), 16000)
        return done

    monkeypatch.setattr(desk, "purify", purify)
    monkeypatch.setattr(type(service.screener.pretrained.card), "purifier_path", Path("x"))
    with testing.TestClient(build_app(service)) as client:
        answer = client.post("/v1/purify", content=ann)
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["nip-audio-snr-db"] == "12.5"
        assert answer.headers["nip-audio-cosine"] == "0.9000"
        assert answer.content[:4] == b"RIFF"
        assert not list(client.app.state.folder.iterdir())


# ---- the enrolment gate, and a threshold that was set on trials


@pytest.fixture
def gated(service, monkeypatch):
    """Let the service have a gate; synthetic voices are speech, whatever silero-vad says."""
    pytest.importorskip("silero_vad", reason="the extra gate is not installed")
    monkeypatch.setattr(sounds, "find_speech", sound_of)

    def ask(**recording) -> None:
        limits = GateLimits.of(None)
        limits = replace(limits, recording=replace(limits.recording, **recording))
        gate = EnrolmentGate.at(limits, strict=True)
        service.screener = service.desks.screener = replace(service.screener, gate=gate)

    return ask


EASY = {"least_speech_s": 0.5, "least_snr_db": -20.0, "least_bandwidth_hz": 0.0}


def test_what_the_gate_rejects_is_not_enrolled_and_all_reasons_are_told(
    client, service, gated, ann
):
    gated(**EASY | {"least_speech_s": 30.0, "least_level_dbfs": 0.0})
    judged = client.post("/v1/screen", content=ann).json()
    assert judged["verdict"] == "unfit"
    assert judged["unmet"] == ["least_speech_s", "least_level_dbfs"]
    refused = client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert error(refused) == (422, "unfit")
    told = refused.json()
    assert "at least 30 s are needed; its speech is at" in told["error"]["found"]
    assert "record a longer passage; record closer" in told["error"]["remedy"]
    assert told["record"]["unmet"] == judged["unmet"]
    assert service.voices.speakers() == []
    forced = client.post("/v1/enroll", params={"speaker": "ann", "force": True}, content=ann)
    assert forced.status_code == 200


def test_what_keeps_the_limits_is_enrolled(client, gated, ann):
    gated(**EASY)
    answer = client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert answer.status_code == 200
    assert answer.json()["record"]["unmet"] == []


def test_an_attack_is_refused_as_one_though_the_gate_rejects_it_too(client, service, gated, ann):
    gated(**EASY | {"least_speech_s": 30.0})
    service.screener = _finding_everything(service.screener)
    answer = client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert error(answer) == (409, "adversarial")
    assert answer.json()["error"]["found"] == "it looks attacked"
    assert answer.json()["record"]["unmet"] == ["least_speech_s"]


def test_a_claim_may_be_shorter_than_an_enrolment(client, gated, ann, monkeypatch):
    gated(**EASY)
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    monkeypatch.setattr(sounds, "find_speech", None)  # what is not asked need not be there
    claim = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()
    assert claim["accepted"]
    assert claim["record"]["speech_s"] is None


@pytest.mark.parametrize("value", [0.3, 1.5])
def test_a_claim_is_decided_at_the_threshold_of_a_file(client, service, ann, value):
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    service.threshold = fitted(service, value, enrolled_from=1)
    claim = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()
    assert claim["threshold"] == value
    assert claim["accepted"] == (value < 1)
    assert claim["calibrated_llr"] == pytest.approx(10 * claim["score"] - 5)
    assert (claim["recordings"], claim["notes"]) == (1, [])
    assert client.get("/v1/health").json()["threshold"] == value


def test_a_voice_of_fewer_recordings_than_the_threshold_is_for_is_noted(client, service, ann):
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    service.threshold = fitted(service, 0.3, enrolled_from=3)
    (note,) = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()["notes"]
    assert "set for voices enrolled from 3 recordings, these are of 1" in note


def test_a_threshold_of_other_scores_is_refused(service):
    other = replace(fitted(service, 0.3, enrolled_from=1), back_end="plda")
    with pytest.raises(InputError, match="made for scores of the PLDA plda, but the cosine"):
        replace(service, threshold=other)


def fitted(service: Service, value: float, *, enrolled_from: int) -> VerificationThreshold:
    curve = ErrorCurve(np.zeros(1), np.zeros(1), np.zeros(1))
    return VerificationThreshold(
        service.screener.pretrained.model_id,
        value,
        "cosine",
        None,
        enrolled_from,
        LogRatios(10.0, -5.0, 0.5),
        curve,
        (),
        "trials",
        {},
    )


def test_without_a_threshold_file_nothing_is_calibrated(client, ann):
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    claim = client.post("/v1/verify", params={"speaker": "ann"}, content=ann).json()
    assert claim["calibrated_llr"] is None
    assert claim["notes"] == []


def test_a_recording_is_read_once_and_the_voice_is_what_enroll_hears(
    client, service, ann, tmp_path, monkeypatch
):
    reads = []
    read = adapter.read_audio
    monkeypatch.setattr(
        adapter, "read_audio", lambda *given, **more: reads.append(1) or read(*given, **more)
    )
    monkeypatch.setattr(manifest, "read_audio", adapter.read_audio)
    client.post("/v1/enroll", params={"speaker": "ann"}, content=ann)
    assert len(reads) == 1
    client.post("/v1/verify", params={"speaker": "ann"}, content=ann)
    assert len(reads) == 2
    (tmp_path / "ann.wav").write_bytes(ann)
    samples = service.screener.adapter.read(Recording("ann", tmp_path / "ann.wav")).samples
    expected = embed_audio(service.screener.pretrained, samples)
    voice, _ = service.voices.voice("ann")
    assert torch.allclose(voice, expected, atol=1e-6)


def test_the_description_has_refusals_and_what_a_threshold_file_adds(client):
    told = client.get("/openapi.json").json()
    for route in ("screen", "enroll", "verify", "purify"):
        refused = told["paths"][f"/v1/{route}"]["post"]["responses"]["422"]["content"]
        assert refused["application/json"]["schema"]["$ref"].endswith("/Refusal")
    assert "409" in told["paths"]["/v1/enroll"]["post"]["responses"]
    assert "enrolment gate" in told["paths"]["/v1/enroll"]["post"]["description"]
    assert "calibrated_llr" in told["components"]["schemas"]["Verified"]["properties"]


def test_a_parameter_that_is_missing_is_told_like_everything_else(client, ann):
    answer = client.post("/v1/enroll", content=ann)
    assert error(answer) == (422, "parameter")
    assert "query.speaker" in answer.json()["error"]["found"]


# ---- processes


@pytest.mark.slow
def test_processes_answer_and_a_crash_takes_nothing_else_with_it(screener, ann, tmp_path):
    path = tmp_path / "ann.wav"
    path.write_bytes(ann)
    desks = Desks(screener.measurer, workers=1)

    async def asked() -> tuple:
        name = await desks.ask(desk.name_of_model)
        measured = await desks.ask(desk.measure, path, True)
        refused = await desks.ask(desk.purify, tmp_path / "missing.wav", tmp_path / "copy.wav")
        with pytest.raises(WorkerError, match="crashed"):
            await desks.ask(os._exit, 7)
        again = await desks.ask(desk.measure, path, False)
        return name, measured, refused, again

    try:
        name, measured, refused, again = asyncio.run(asked())
    finally:
        desks.close()
    assert name == screener.pretrained.card.name
    here = screener.measurer(Recording(path.name, path))
    assert screener.judge.judge(measured).to_json() == screener.judge.judge(here).to_json()
    assert isinstance(refused, Refused)
    assert refused.error["code"] == "missing"
    assert screener.judge.judge(again).to_json() == screener.judge.judge(here).to_json()


def test_a_port_that_is_taken_is_told(service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"cannot listen on 127.0.0.1, port {port}"):
            listen(build_app(service), "127.0.0.1", port)


def test_it_listens_until_it_is_told_to_stop_and_that_is_no_error(service):
    app = build_app(service)

    def stop_when_it_answers() -> None:
        while not service.desks.asked:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopping = threading.Thread(target=stop_when_it_answers)
    stopping.start()
    listen(app, "127.0.0.1", 0)
    stopping.join()
    assert service.desks.closed
    assert signal.getsignal(signal.SIGTERM) == before
