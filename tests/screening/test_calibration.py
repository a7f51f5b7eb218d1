from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch

from nip_audio import PretrainedModel, WaveformAdapter, read_audio
from nip_audio.audio.io import ReadSettings, write_audio
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.core.decision import LOGIT_CHANGES
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.core.state import State, save_state
from nip_audio.errors import CalibrationError, HashMismatchError, InputError, StateError
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import noise_generator
from nip_audio.screening.probes import NccrProbe, Place
from nip_audio.screening.recordings import Recordings

RECORDINGS = Recordings(WaveformAdapter())


def test_round_trips_through_a_file(calibration, tmp_path):
    path = tmp_path / "a.calibration"
    calibration.save(path)
    loaded = Calibration.load(path, model_id=calibration.model_id)
    assert loaded.fingerprint == calibration.fingerprint
    assert loaded.detector.probe.config == calibration.detector.probe.config
    rows = np.abs(
        np.random.default_rng(0).normal(size=(3, len(calibration.detector.rates.slopes_) + 1))
    )
    np.testing.assert_array_equal(
        loaded.detector.distances_of(rows), calibration.detector.distances_of(rows)
    )
    assert loaded.verification_threshold == calibration.verification_threshold
    assert loaded.seen == calibration.seen


def test_is_refused_by_another_model(calibration, tmp_path):
    calibration.save(tmp_path / "a.calibration")
    with pytest.raises(StateError, match="was made for model"):
        Calibration.load(tmp_path / "a.calibration", model_id="0" * 64)


def test_is_refused_when_a_byte_has_changed(calibration, tmp_path):
    path = tmp_path / "a.calibration"
    calibration.save(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(HashMismatchError, match="was changed"):
        Calibration.load(path, model_id=calibration.model_id)


def test_does_not_depend_on_the_order_of_files(pretrained, clean_folder, calibration):
    backwards = list(walk_audio(clean_folder))[::-1]
    other = calibrate(pretrained, backwards, WaveformAdapter(), calibration.detector.probe.config)
    np.testing.assert_allclose(
        other.detector.estimator.center_, calibration.detector.estimator.center_, atol=1e-9
    )
    assert other.seen == calibration.seen


def test_leaves_out_bad_files_and_lists_them(pretrained, clean_folder, calibration, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    recordings = [Recording("bad.wav", tmp_path / "bad.wav", "x"), *walk_audio(clean_folder)]
    other = calibrate(pretrained, recordings, WaveformAdapter(), calibration.detector.probe.config)
    assert [failure.code for failure in other.failures] == ["not_audio"]
    assert other.fingerprint == calibration.fingerprint


@pytest.mark.parametrize(
    ("sound", "code", "settings"),
    [
        ("hiss", "no_speech", ReadSettings()),
        ("tone", "no_speech", ReadSettings()),
        ("a word", "too_little_sound", ReadSettings()),
        ("a word", "too_little_sound", ReadSettings(min_sound_s=0.1)),
    ],
)
def test_what_holds_no_speech_is_left_out_and_listed(
    pretrained, clean_folder, calibration, tmp_path, voice, sound, code, settings
):
    word = np.concatenate([voice(0, 9)[:4800], np.zeros(16000, np.float32)])
    hiss = 0.1 * np.random.default_rng(0).standard_normal(16000)
    tone = 0.1 * np.sin(np.arange(16000) / 5)
    write_audio(
        tmp_path / "x.wav",
        torch.from_numpy({"hiss": hiss, "tone": tone, "a word": word}[sound]).float(),
        16000,
    )
    files = [*walk_audio(tmp_path), *walk_audio(clean_folder)]
    config = calibration.detector.probe.config
    fitted = calibrate(pretrained, files, WaveformAdapter(settings), config)
    assert [failure.code for failure in fitted.failures] == [code]
    assert str(fitted.failures[0]).startswith(f"{tmp_path / 'x.wav'}: it")
    assert fitted.fingerprint == calibration.fingerprint


def test_telephone_audio_is_left_out_where_it_could_not_be_judged(
    pretrained, clean_folder, calibration, voice, tmp_path
):
    soundfile.write(tmp_path / "low.wav", voice(9, 1)[::2], 8000)
    narrow = soxr.resample(soxr.resample(voice(9, 2), 16000, 8000), 8000, 16000)
    soundfile.write(tmp_path / "narrow.wav", narrow, 16000)
    telephone = list(walk_audio(tmp_path))
    config = calibration.detector.probe.config
    recordings = [*telephone, *walk_audio(clean_folder)]
    other = calibrate(pretrained, recordings, WaveformAdapter(), config)
    assert [failure.code for failure in other.failures] == ["narrow", "narrow"]
    assert "low.wav: it holds nothing above 4 kHz, as over a telephone" in str(other.failures[0])
    assert other.fingerprint == calibration.fingerprint
    with pytest.raises(CalibrationError, match=r"got 0 usable recordings \(2 failed\)"):
        calibrate(pretrained, telephone, WaveformAdapter(), config)


def test_refuses_too_few_files(pretrained, clean_folder, calibration):
    few = list(walk_audio(clean_folder))[:10]
    with pytest.raises(CalibrationError, match="10 usable recordings"):
        calibrate(pretrained, few, WaveformAdapter(), calibration.detector.probe.config)


def test_tolerates_the_noise_it_was_told_to(
    pretrained, clean_folder, calibration, screener, folder
):
    tolerant = calibrate(
        pretrained,
        walk_audio(clean_folder),
        WaveformAdapter(),
        calibration.detector.probe.config,
        tolerated_noise_rms=0.02,
    )
    assert tolerant.files == 2 * calibration.files
    assert tolerant.seen == calibration.seen
    quiet = read_audio(folder / "s0/take10.wav")
    noise = torch.randn(quiet.samples.shape, generator=torch.Generator().manual_seed(0))
    hiss = replace(quiet, samples=(quiet.samples + 0.01 * noise).clamp(-1, 1))
    measured = RECORDINGS.measure(pretrained, hiss, calibration.detector.probe, seed=0)
    known, bearing = calibration.detector, tolerant.detector
    assert known.p_value(known.distance(measured), Place()) < 0.05
    assert bearing.p_value(bearing.distance(measured), Place()) > 0.05


@pytest.mark.parametrize("rms", [0.0, 1e-4, -1.0, 30.0])
def test_refuses_a_senseless_tolerance(pretrained, clean_folder, calibration, rms):
    with pytest.raises(InputError, match="tolerated noise"):
        calibrate(
            pretrained,
            walk_audio(clean_folder),
            WaveformAdapter(),
            calibration.detector.probe.config,
            tolerated_noise_rms=rms,
        )


def test_judges_by_the_name_where_the_model_names_its_speakers(pretrained, clean_folder):
    config = NccrConfig(("frames.2",), (Noise("gaussian", "raw", 0.002),), draws=1)
    recordings = list(walk_audio(clean_folder))
    by_name = calibrate(pretrained, recordings, WaveformAdapter(), config, names=True)
    by_voice = calibrate(pretrained, recordings, WaveformAdapter(), config)
    assert by_name.detector.probe.names and not by_voice.detector.probe.names  # noqa: PT018
    assert [len(one.detector.rates.slopes_) for one in (by_name, by_voice)] == [1 + 3, 1 + 1]
    audio = read_audio(recordings[0].path)
    measured = RECORDINGS.measure(pretrained, audio, NccrProbe(config, names=True), seed=0)
    assert by_name.detector.farthest(measured)[1] in ("frames.2", *LOGIT_CHANGES)


def test_no_names_of_a_model_that_gives_none(pretrained, clean_folder):
    bare = PretrainedModel(pretrained.card, pretrained.model.without_head())
    config = NccrConfig(("frames.2",), (Noise("gaussian", "raw", 0.002),), draws=1)
    with pytest.raises(CalibrationError, match="names no speakers"):
        calibrate(bare, walk_audio(clean_folder), WaveformAdapter(), config, names=True)


def test_says_how_many_files_a_low_rate_needs(calibration):
    with pytest.raises(CalibrationError, match="at least 999"):
        Judge(calibration, 0.001)


def test_states_how_many_clean_files_it_calls_inconsistent(calibration):
    known = replace(
        calibration, verification_threshold=0.5, consistencies=np.array([0.4, 0.6, 0.7, 0.8])
    )
    assert known.inconsistent_share == 0.25
    assert replace(known, verification_threshold=None).inconsistent_share is None


def test_judges_no_consistency_without_repeated_speakers(screener, folder):
    calibration = replace(screener.judge.calibration, verification_threshold=None)
    blind = replace(screener, judge=replace(screener.judge, calibration=calibration))
    measured = [blind.measurer(r) for r in walk_audio(folder / "s1")]
    alone = [blind.judge.judge(file) for file in measured]
    records = blind.judge.compare_files(alone, measured)
    assert all(r.details.consistency is not None and r.verdict != "inconsistent" for r in records)


def test_records_what_it_saw_by_content(calibration, clean_folder, tmp_path):
    original = read_audio(clean_folder / "s1/take2.wav")
    copy = tmp_path / "renamed.flac"
    soundfile.write(copy, original.samples.numpy(), 16000, "PCM_16")
    content = read_audio(copy).content_sha256
    assert content in calibration.seen
    with pytest.raises(InputError, match="1 test items were seen"):
        refuse_overlap(calibration.seen, [content, "f" * 64], what="calibration")
    refuse_overlap(calibration.seen, ["f" * 64], what="calibration")


def test_noise_comes_from_seed_and_content_alone(pretrained, clean_folder, calibration):
    audio = read_audio(clean_folder / "s0/take0.wav")
    first = RECORDINGS.measure(pretrained, audio, calibration.detector.probe, seed=3)
    again = RECORDINGS.measure(pretrained, audio, calibration.detector.probe, seed=3)
    other = RECORDINGS.measure(pretrained, audio, calibration.detector.probe, seed=4)
    np.testing.assert_array_equal(first.evidence, again.evidence)
    assert not np.array_equal(first.evidence, other.evidence)
    assert noise_generator(0, "a").initial_seed() != noise_generator(0, "b").initial_seed()


def test_explains_the_direction_of_a_deviation(screener, folder):
    file = screener.measurer(Recording("x", folder / "s0/take10.wav"))
    row = file.measurement.evidence
    rates = len(screener.judge.calibration.detector.probe.config.names)
    for factor, word in ((100.0, "above the clean"), (0.01, "below the clean")):
        evidence = np.concatenate([row[:rates] * factor, row[rates:]])
        changed = replace(file, measurement=replace(file.measurement, evidence=evidence))
        record = screener.judge.judge(changed)
        assert record.verdict == "adversarial"
        assert word in record.findings[0].why
        assert "do not enrol it" in record.findings[0].remedy


def test_says_out_of_domain_instead_of_clean(screener, folder):
    file = screener.measurer(Recording("x", folder / "s0/take10.wav"))
    odd = replace(file.measurement, spectrum=file.measurement.spectrum + 5.0)
    record = screener.judge.judge(replace(file, measurement=odd))
    assert (record.verdict, record.flagged, record.failed) == ("out_of_domain", False, True)
    assert json.loads(record.to_line())["verdict"] == "out_of_domain"
    # an odd spectrum does not hide an attack
    attacked = replace(odd, evidence=odd.evidence * 100)
    record = screener.judge.judge(replace(file, measurement=attacked))
    assert (record.verdict, record.flagged) == ("adversarial", True)
    assert [finding.risk for finding in record.findings] == ["out_of_domain", "adversarial"]


def test_audio_that_went_through_a_telephone_is_out_of_domain(screener, folder, voice):
    narrow = soxr.resample(soxr.resample(voice(0, 10), 16000, 8000), 8000, 16000)
    soundfile.write(folder / "s0/take10.wav", narrow, 16000, "PCM_16")
    record = screener.judge.judge(screener.measurer(Recording("x", folder / "s0/take10.wav")))
    # this detector, calibrated on clean audio of the full band, takes it for an attack as well
    assert {finding.risk for finding in record.findings} >= {"out_of_domain"}
    assert record.verdict != "clean"
    assert record.details.bandwidth_hz <= 4250
    assert any("went through a narrower channel" in why for why in record.why)


def test_goes_by_the_run_when_told_a_false_discovery_rate(screener, folder):
    file = screener.measurer(Recording("x", folder / "s0/take10.wav"))
    by_run = replace(screener.judge, false_discovery_rate=0.1)
    assert by_run.judge(file, q_value=0.05).verdict == "adversarial"
    assert "q = 0.05, limit 0.1" in by_run.judge(file, q_value=0.05).why[0]
    assert by_run.judge(file, q_value=0.2).verdict == "clean"
    with pytest.raises(InputError, match="false-discovery rate is 1.5"):
        replace(screener.judge, false_discovery_rate=1.5)


def test_names_damage(screener, folder, voice):
    samples = voice(0, 10)
    for start in (3000, 9000):
        samples[start : start + 800] = 0.0
    soundfile.write(folder / "s0/take10.wav", samples, 16000, "PCM_16")
    record = screener.judge.judge(screener.measurer(Recording("x", folder / "s0/take10.wav")))
    silent = "drops to exact silence 2 times (10.0% of its length)"
    assert any(silent in why for why in record.why)


def test_p_values_go_on_where_the_calibration_ends(calibration):
    rng = np.random.default_rng(0)
    few, place = calibration.detector, Place()
    many = replace(few, distances=np.sort(rng.exponential(size=500)))
    beyond = float(many.distances[-1]) * 2
    assert many.tail_p_value(beyond, place) < many.p_value(beyond, place) == 1 / 501
    assert many.tail_p_value(0.5, place) == many.p_value(0.5, place)
    assert few.tail_p_value(1e9, place) == few.p_value(1e9, place)  # too few for a tail


def test_a_calibration_of_an_earlier_version_is_refused(calibration, tmp_path):
    path = tmp_path / "old.calibration"
    state = State(
        "calibration",
        calibration.model_id,
        {},
        {"nccr": calibration.detector.probe.config.to_json()},
    )
    save_state(path, state)
    with pytest.raises(StateError, match="earlier version of nip-audio, expected .* make it again"):
        Calibration.load(path, model_id=calibration.model_id)


def test_copies_do_not_count_twice(pretrained, clean_folder, calibration):
    twice = [r for r in walk_audio(clean_folder) for _ in range(2)]
    other = calibrate(pretrained, twice, WaveformAdapter(), calibration.detector.probe.config)
    assert other.fingerprint == calibration.fingerprint
    assert {failure.code for failure in other.failures} == {"duplicate"}
    assert len(other.failures) == calibration.files


def test_the_files_to_listen_to_are_the_farthest(calibration):
    names, distances = zip(*calibration.farthest, strict=True)
    assert len(set(names)) == 5
    assert list(distances) == sorted(distances, reverse=True)
    assert distances[0] == calibration.detector.distances[-1]
    assert not calibration.failures
