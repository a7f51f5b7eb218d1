"""Faults are what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.audio.speech import silence_s
from nip_audio.screening.calibration import Calibration
from nip_audio.speechbrain.data_stage import without
from studies.gate import one_voice, training
from studies.gate.clips import ATTACKED, GOOD, MEMBER, SECOND, chapter_of, plan
from studies.gate.faults import FAULTS, RATE_HZ
from studies.gate.one_voice import Voice, same_voices
from studies.gate.training import mislabel


@pytest.fixture
def made(voice):
    def make(name):
        draw = np.random.default_rng(0)
        return FAULTS[name].change(voice(1, 0, 5.0), voice(2, 0, 5.0), draw)

    return make


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_waveform(made, name):
    samples = made(name)
    assert samples.ndim == 1
    assert np.abs(samples).max() <= 1
    assert 5 * RATE_HZ <= len(samples) <= 8 * RATE_HZ


def test_each_fault_is_there(made, voice):
    clip = voice(1, 0, 5.0)
    assert (np.abs(made("2 % of the samples clipped")) == 1).mean() == pytest.approx(0.02, abs=1e-3)
    assert np.std(made("40 dB quieter")) == pytest.approx(0.01 * np.std(clip), rel=1e-6)
    upsampled = made("sampled at 8 kHz, says 16 kHz")
    spectrum = np.abs(np.fft.rfft(upsampled * np.hanning(len(upsampled))))
    assert spectrum[len(spectrum) * 9 // 16 :].max() < 1e-4 * spectrum.max()
    gap = torch.from_numpy(made("a second of digital silence in it"))
    assert silence_s(gap, RATE_HZ) == pytest.approx(1.0, abs=0.001)
    noise = made("white noise at 5 dB") - clip
    assert 20 * np.log10(np.std(clip) / np.std(noise)) == pytest.approx(5, abs=0.2)


LISTED = "path,speaker,chapter,role,start_s,end_s\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three speakers: two test recordings each, and a folder of six in two chapters."""
    root, rows = tmp_path_factory.mktemp("corpus"), [LISTED]
    drawn = np.random.default_rng(0)
    for speaker in (1, 2, 3):
        for take in range(8):
            role, chapter = ("test", 30) if take < 2 else ("train", 10 + take // 6)
            path = root / f"test-clean/{speaker}/{chapter}/{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = 0.1 * drawn.standard_normal(round(6.5 * RATE_HZ))
            soundfile.write(path, samples, RATE_HZ, "PCM_16")
            name = path.relative_to(root).as_posix()
            rows.append(f"{name},{speaker},{chapter},{role},0.0,6.5\n")
    (root / "split.csv").write_text("".join(rows))
    return root


def planned(corpus, **counts):
    return list(plan(corpus / "split.csv", corpus, **counts))


def test_each_clip_has_a_name_and_is_the_same_whenever_it_is_made(corpus):
    clips = planned(corpus, good=8, faulty=1)
    assert len({clip.key for clip in clips}) == len(clips)
    assert [clip.kind for clip in clips].count(GOOD) == 8
    assert {clip.span.role for clip in clips if clip.kind != MEMBER} == {"test"}
    assert {clip.span.role for clip in clips if clip.kind == MEMBER} == {"train"}
    again = planned(corpus, good=8, faulty=1)
    for one, other in zip(clips, again, strict=True):
        if one.kind != ATTACKED:
            assert np.array_equal(one.make(None, None), other.make(None, None)), one.key


def test_a_recording_that_is_used_again_is_cropped_elsewhere(corpus):
    clips = [clip for clip in planned(corpus, good=12, faulty=0) if clip.kind == GOOD]
    first, second = clips[0], clips[6]
    assert first.span == second.span
    made = [clip.make(None, None) for clip in (first, second)]
    assert len(made[0]) == 6 * RATE_HZ
    assert 4 * RATE_HZ <= len(made[1]) <= 6 * RATE_HZ
    assert not np.array_equal(made[0][: len(made[1])], made[1])


def test_a_second_voice_is_of_another_speaker_and_as_long_as_it_says(corpus):
    clips = [clip for clip in planned(corpus, good=0, faulty=2) if clip.kind == SECOND]
    assert clips
    for clip in clips:
        assert clip.other.speaker != clip.span.speaker
        assert len(clip.make(None, None)) == pytest.approx((4 + clip.seconds) * RATE_HZ, abs=1)


def test_a_folder_has_its_largest_chapter_first(corpus):
    members = [clip for clip in planned(corpus, good=0, faulty=0) if clip.kind == MEMBER]
    own = [chapter_of(clip.span.path) for clip in members if clip.span.speaker == "1"]
    assert own == ["10"] * 4 + ["11"] * 2


def test_the_same_voice_is_told_on_speakers_that_taught_nothing(monkeypatch):
    monkeypatch.setattr(one_voice, "_ROUNDS", 20)
    drawn = np.random.default_rng(0)

    def rows(centre):
        found = centre + 0.2 * drawn.standard_normal((6, 16))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    centres = drawn.standard_normal((20, 16))
    voices = {str(k): Voice(rows(one), rows(one)) for k, one in enumerate(centres)}
    found = same_voices(voices)
    assert (found["speakers"], found["one_voice"], found["two_voices"]) == (20, 20, 90)
    assert found["cllr"].value < 0.2
    assert found["rows"][0]["recall"].value > 0.95
    turned = {name: Voice(one.folder, voices[str(19 - int(name))].later)
              for name, one in voices.items()}  # fmt: skip
    assert same_voices(turned)["rows"][0]["recall"].value < 0.3


def test_labels_are_given_to_others_at_the_share_asked_for():
    speakers = [f"s{k % 5}" for k in range(50)]
    given = mislabel(speakers, 0.2, seed=1)
    assert sum(a != b for a, b in zip(speakers, given, strict=True)) == 10
    assert given == mislabel(speakers, 0.2, seed=1) != mislabel(speakers, 0.2, seed=2)
    assert mislabel(speakers, 0.0, seed=1) == speakers


def test_what_a_screening_calls_inconsistent_is_left_out_of_the_training(pretrained, monkeypatch):
    calibration = Calibration.of(pretrained)
    monkeypatch.setattr(training, "_STEPS", 2)
    speakers = [f"s{k % 4}" for k in range(40)]
    drawn = np.random.default_rng(0)
    rows = np.eye(8)[[k % 4 for k in range(40)]] + 0.05 * drawn.standard_normal((40, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    features = [torch.from_numpy(drawn.random((40, 160), dtype=np.float32)) for _ in speakers]
    learn = training.Corpus([f"r{k}" for k in range(40)], speakers, features, rows)
    given = mislabel(speakers, 0.1, seed=0)
    wrong = {f"r{k}" for k in range(40) if given[k] != speakers[k]}
    assert training.inconsistent(learn, given, calibration) == wrong
    seen = []
    brain = training.train(
        learn, given, lambda data: seen.append(data) or without(data, wrong), seed=0
    )
    assert len(seen) == 1
    assert len(training.correct(brain, learn)) == 40
