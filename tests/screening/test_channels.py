"""Channels that differ are judged each by itself: a system may read one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import read_audio
from nip_audio.audio.manifest import Recording
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.detectors.fitted import FittedPerceptron
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.response import response_names
from nip_audio.reporting.evidence import Evidence
from nip_audio.reporting.sections import evidence_html
from nip_audio.screening.journal import from_line, to_line
from nip_audio.screening.judge import Judge
from nip_audio.screening.measured import MeasuredFile
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.probes import Place, ResponseProbe
from nip_audio.screening.recordings import Recordings
from nip_audio.screening.response import Examples, ResponseDetector

EXAMPLES = Path(__file__).parents[2] / "examples" / "enrolment"
ATTACKED, CLEAN = (EXAMPLES / "alba" / f"alba-{i}.flac" for i in (3, 1))
WINDOW_S = 1.0


@pytest.fixture(scope="module")
def responding(pretrained, calibration) -> Screener:
    """Judge by how far the purifier moves the embedding, which an attack makes large."""
    config = NccrConfig(("frames.2",), (Noise("gaussian", "raw", 0.004),), 1)
    size = len(response_names(config, head=False)) + 1
    first = np.eye(size, 1)
    network = FittedPerceptron()
    network.n_features_in_ = size
    network.weights_ = {
        **{"center": np.zeros(size), "scale": np.ones(size), "clip": np.full(1, 100.0)},
        **{"w1": first, "b1": np.zeros(1), "w2": np.full((1, 1), 20.0), "b2": np.full(1, -52.0)},
    }
    purifier = GuidedNip.load(pretrained.card.purifier_path, model_id=pretrained.model_id)
    detector = ResponseDetector(
        ResponseProbe(config, False, purifier, WINDOW_S),
        network,
        files=1000,
        scores={"none": np.linspace(0.0, 0.1, 1000)},
        kinds={"none": "level"},
        examples=Examples(np.zeros((1, size)), ("an attack",), ("attack",)),
    )
    judge = Judge(replace(calibration, detector=detector), 0.01)
    return Screener(pretrained, judge, WaveformAdapter())


@pytest.fixture(scope="module")
def sounds() -> dict[str, np.ndarray]:
    """Two seconds of the same voice: attacked, and as it was recorded."""
    found = {"attacked": ATTACKED, "clean": CLEAN}
    return {n: soundfile.read(p, dtype="float32")[0][16000:48000] for n, p in found.items()}


@pytest.fixture
def measure(responding, tmp_path):
    def call(*channels: np.ndarray) -> MeasuredFile:
        path = tmp_path / "a.wav"
        soundfile.write(path, np.stack(channels, axis=1), 16000, "FLOAT")
        return responding.measurer(Recording("a.wav", path))

    return call


def test_an_attack_in_one_channel_is_found_there(responding, measure, sounds):
    attacked, clean = sounds["attacked"], sounds["clean"]
    alone = measure(attacked)
    assert responding.judge.judge(alone).verdict == "adversarial"
    assert responding.judge.judge(measure(clean)).verdict != "adversarial"
    for number, channels in ((1, (attacked, clean)), (2, (clean, attacked))):
        file = measure(*channels)
        record = responding.judge.judge(file)
        assert record.verdict == "adversarial"
        (why,) = (f.why for f in record.findings if f.risk == "adversarial")
        assert f"changes it in channel {number} in the 1.0 s from " in why
        mean = responding.judge.calibration.detector.rows(file.measurement)[:2]
        distances = responding.judge.calibration.detector.distances_of(mean)
        assert distances.max() < record.distance_threshold  # their mean would have hidden it
        assert record.details.sound_s == alone.facts.heard.sound_s  # not of all channels together


def test_every_window_of_every_channel_counts(responding, measure, sounds):
    file = measure(sounds["attacked"], sounds["clean"], np.zeros(32000, np.float32))
    one = file.measurement
    np.testing.assert_array_equal(one.channels, [0, 0, 1, 1, 2, 2])  # the third is silent
    assert len(one.windows) == 12
    rows = responding.judge.calibration.detector.rows(one)
    assert len(rows) == 6
    place = Recordings.place(file.facts, one, responding.judge.calibration)
    assert place == Place(narrow=False, windows=6)
    again = from_line(to_line(file)).measurement
    np.testing.assert_array_equal(again.channels, one.channels)


def test_the_report_lists_the_worst_windows(responding, measure, sounds):
    detector = responding.judge.calibration.detector
    both = measure(sounds["clean"], sounds["attacked"]).measurement
    evidence = Evidence.of(detector, both)
    assert [one.channel for one in evidence.windows[:2]] == [2, 2]
    assert len(evidence.windows) == 6
    assert evidence.windows[0].distance == detector.distance(both)
    html = evidence_html(evidence, Recordings.words)
    assert '<th scope="col">channel</th>' in html
    assert "0.69 means even odds" in html
    assert html.index("<td>2</td>") < html.index("<td>mean of all</td>")
    assert html.count("<td>an attack</td>") == 6
    alone = evidence_html(
        Evidence.of(detector, measure(sounds["clean"]).measurement), Recordings.words
    )
    assert "channel" not in alone


def test_equal_channels_are_one(measure, sounds):
    one, two = measure(sounds["clean"]), measure(sounds["clean"], sounds["clean"])
    assert (len(one.measurement.channels), len(two.measurement.channels)) == (0, 0)
    assert one.facts.content_sha256 == two.facts.content_sha256
    np.testing.assert_array_equal(one.measurement.windows, two.measurement.windows)
    # the noise is another one, as the bytes of the files differ, so rows are not compared
    assert one.measurement.evidence.shape == two.measurement.evidence.shape


def test_the_mean_is_measured_as_if_there_were_no_channels(responding, tmp_path, sounds):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([sounds["attacked"], sounds["clean"]], axis=1), 16000, "FLOAT")
    audio, kind = read_audio(path), Recordings(responding.adapter)
    probe = responding.judge.calibration.detector.probe
    with_channels, without = (
        kind.measure(responding.pretrained, one, probe, seed=0)
        for one in (audio, replace(audio, channels=()))
    )
    np.testing.assert_array_equal(with_channels.windows[:4], without.windows)
    size = len(without.evidence)
    np.testing.assert_array_equal(with_channels.evidence[:size], without.evidence)
    np.testing.assert_array_equal(with_channels.embedding, without.embedding)


def hum(rate_hz: int = 16000) -> np.ndarray:
    time_s = np.arange(2 * rate_hz) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 50 * time_s)).astype(np.float32)


def hiss(level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)


def risks(record) -> list[str]:
    return [finding.risk for finding in record.findings]


@pytest.mark.parametrize("noise", [hum(), hiss()], ids=["hum", "hiss"])
def test_a_channel_of_noise_alone_is_not_judged_and_the_file_not_clean(
    responding, measure, sounds, noise
):
    file = measure(0.5 * sounds["clean"], noise)
    assert file.facts.heard.speechless == (2,)
    assert 2 not in file.measurement.channels
    record = responding.judge.judge(file)
    assert (record.verdict, set(risks(record))) == ("out_of_domain", {"out_of_domain"})
    assert "hum or hiss alone, in channel 2: not judged" in record.findings[0].why
    assert "--channel" in record.findings[0].remedy
    attacked = responding.judge.judge(measure(sounds["attacked"], 0.1 * noise))
    assert attacked.verdict == "adversarial"
    assert risks(attacked)[0] == "out_of_domain"


@pytest.mark.parametrize("noise", [hum(), hiss()], ids=["hum", "hiss"])
def test_noise_alone_is_neither_clean_nor_adversarial(responding, measure, noise, monkeypatch):
    judge = responding.judge
    for file in (measure(noise), measure(noise, 0.5 * noise)):
        assert judge.judge(file).verdict == "out_of_domain"
        monkeypatch.setattr(Judge, "_adversarial", lambda *_: pytest.fail("it was judged"))
        record = judge.judge(file)
        assert set(risks(record)) == {"out_of_domain"}
        assert "it holds no speech" in record.findings[0].why
        monkeypatch.undo()


def test_two_voices_in_two_channels_are_no_voice(responding, measure, voice, sounds):
    two = [np.tile(voice(speaker, 0), 2) for speaker in (0, 6)]
    record = responding.judge.judge(measure(*two))
    assert "inconsistent" in risks(record)
    (why,) = (f.why for f in record.findings if f.risk == "inconsistent")
    assert why.startswith("its channels do not sound like one voice (cosine similarity ")
    assert record.details.channel_likeness < record_threshold(responding)
    one = responding.judge.judge(measure(sounds["clean"], 0.3 * sounds["clean"]))
    assert one.details.channel_likeness > 0.9
    assert "inconsistent" not in risks(one)
    assert responding.judge.judge(measure(two[0])).details.channel_likeness is None


def record_threshold(screener: Screener) -> float:
    return screener.judge.calibration.verification_threshold


@pytest.mark.parametrize("share", [-1.0, -0.93])
def test_an_attack_is_found_where_channels_cancel_each_other(responding, measure, sounds, share):
    judge = responding.judge
    found = {n: judge.judge(measure(x, share * x)).verdict for n, x in sounds.items()}
    assert found["attacked"] == "adversarial"
    assert found["clean"] == judge.judge(measure(sounds["clean"])).verdict


def test_of_many_channels_what_is_not_judged_is_said(responding, measure, sounds):
    many = [sounds["clean"] * (1 - 0.05 * i) for i in range(10)]
    record = responding.judge.judge(measure(*many))
    assert record.verdict == "out_of_domain"
    assert "only the first 8 of its 10 channels, which differ, were judged" in str(record.why)


def test_a_clean_only_calibration_does_not_call_different_channels_clean(
    pretrained, calibration, tmp_path, voice
):
    judge = Judge(calibration, 0.05)
    screener = Screener(pretrained, judge, WaveformAdapter())
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([voice(0, 10), 0.5 * voice(0, 10)], axis=1), 16000)
    record = judge.judge(screener.measurer(Recording("a", path)))
    assert record.verdict != "clean"
    assert "judges their mean alone" in str(record.why)
    record = judge.judge(screener.measurer(Recording("a", path, channel=1)))
    assert record.verdict == "clean"
    assert record.details.sound_s == 1.0
