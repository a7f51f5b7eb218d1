"""How the study of VCTK splits so few recordings: all are tested, none by who was trained on it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soundfile

from nip_audio.errors import InputError
from studies.models.measure_vctk import by_sentence, by_time, find

SPEAKERS = ("p225", "p226")


@pytest.fixture
def root(tmp_path):
    """Ten sentences of two speakers, and one in another layout of one of them and of a third."""
    for speaker in SPEAKERS:
        for n in range(1, 11):
            write(tmp_path / "short" / speaker / f"{speaker}_{n:03d}.flac", 1600, 16000)
    for speaker in ("p226", "p230"):
        write(tmp_path / "long" / speaker / f"{speaker}_003_mic1.flac", 9600, 48000)
    return tmp_path


def write(path, samples, rate_hz):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, 0.1), rate_hz)


def test_sentences_are_found_in_any_layout_and_taken_once(root):
    found = find(root, ["short/*/*.flac", "long/*/*_mic1.flac"])
    assert {speaker: len(files) for speaker, files in found.items()} == {
        "p225": 10,
        "p226": 10,
        "p230": 1,
    }
    assert found["p226"]["003"] == root / "short/p226/p226_003.flac"
    assert find(root, ["long/*/*.flac", "short/*/*.flac"])["p226"]["003"].name.endswith("mic1.flac")
    with pytest.raises(InputError, match="no file in .* matches wav48"):
        find(root, ["wav48/*/*"])


def test_every_sentence_is_tested_once_and_trained_on_elsewhere(root):
    splits = by_sentence(root, find(root, ["short/*/*.flac"]))
    assert len(splits) == 5
    for spans in splits:
        assert len({span.path for span in spans}) == 20
        counts = Counter((span.speaker, span.role) for span in spans)
        for speaker in SPEAKERS:
            found = [counts[speaker, role] for role in ("train", "calibrate", "test")]
            assert found == [7, 1, 2]
    tested = Counter(s.path for spans in splits for s in spans if s.role == "test")
    assert len(tested) == 20
    assert set(tested.values()) == {1}


def test_every_quarter_is_tested_once_and_spans_of_a_split_do_not_overlap(root):
    files = {speaker: root / f"short/{speaker}/{speaker}_003.flac" for speaker in SPEAKERS}
    splits = by_time(root, files)
    assert len(splits) == 4
    for spans in splits:
        for speaker in SPEAKERS:
            own = [s for s in spans if s.speaker == speaker]
            assert [s.end_s for s in own[:-1]] == [s.start_s for s in own[1:]]
            assert Counter(s.role for s in own) == {"train": 2, "calibrate": 1, "test": 1}
    tested = {(s.speaker, s.start_s) for spans in splits for s in spans if s.role == "test"}
    assert len(tested) == 8
