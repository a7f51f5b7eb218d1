"""What the recipe knows of LibriSpeech's layout; roles and manifests have tests of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio.corpus import ROLES
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.errors import InputError
from nip_audio.training.corpora import prepare_librispeech

SUBSETS = ("train-clean-100", "dev-clean")


@pytest.fixture(scope="module")
def prepare():
    return prepare_librispeech


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two speakers of ten utterances in one subset, one of five in another; 0.1 s each."""
    root = tmp_path / "LibriSpeech"
    for subset, speaker, count in ((SUBSETS[0], "19", 10), (SUBSETS[0], "103", 10)):
        write_speaker(root, subset, speaker, count)
    write_speaker(root, SUBSETS[1], "7", 5)
    (root / SUBSETS[0] / "README.TXT").write_text("not a speaker")
    (root / SUBSETS[0] / "19" / "100" / "19-100.trans.txt").write_text("not a recording")
    return root


def write_speaker(root: Path, subset: str, speaker: str, count: int) -> None:
    """Write utterances into two chapters."""
    for i in range(count):
        chapter = str(100 + i % 2)
        path = root / subset / speaker / chapter / f"{speaker}-{chapter}-{i:04d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(1600, 0.1), 16000)


def read(folder: Path, corpus: Path) -> dict[str, list[Recording]]:
    return {r: read_recordings(folder / f"{r}.csv", data_root=corpus) for r in ROLES}


def test_every_utterance_of_the_subsets_is_dealt_once(prepare, corpus, tmp_path):
    prepare(str(corpus), str(tmp_path / "out"), subsets=SUBSETS)
    dealt = read(tmp_path / "out", corpus)
    assert {role: Counter(r.speaker for r in dealt[role]) for role in ROLES} == {
        "train": {"19": 8, "103": 8, "7": 3},
        "calibrate": {"19": 1, "103": 1, "7": 1},
        "test": {"19": 1, "103": 1, "7": 1},
    }
    every = [r for role in ROLES for r in dealt[role]]
    assert sorted(r.path for r in every) == sorted(corpus.rglob("*.flac"))
    assert {r.span for r in every} == {(0, 1600)}


def test_only_the_subsets_asked_for_are_taken(prepare, corpus, tmp_path):
    prepare(str(corpus), str(tmp_path / "out"))
    dealt = read(tmp_path / "out", corpus)
    assert {r.speaker for role in ROLES for r in dealt[role]} == {"19", "103"}


def test_seed_and_shares_reach_the_deal(prepare, corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(str(corpus), str(tmp_path / name), role_shares=(0.6, 0.2, 0.2), seed=seed)
    a, b, c = (read(tmp_path / name, corpus) for name in "abc")
    assert a == b != c
    assert [len(a[role]) for role in ROLES] == [12, 4, 4]


def test_split_file_is_followed_within_the_subsets(prepare, corpus, tmp_path):
    split = tmp_path / "split.csv"
    flac = f"{SUBSETS[0]}/19/100/19-100-0000.flac"
    lines = [
        f"{flac},19,train,0,0.05",
        f"{flac},19,calibrate,0.05,0.08",
        f"{flac},19,test,0.08,0.1",
        f"{SUBSETS[1]}/7/100/7-100-0000.flac,7,train,0,0.1",  # of a subset not asked for
    ]
    split.write_text("\n".join(["path,speaker,role,start_s,end_s", *lines]))
    prepare(str(corpus), str(tmp_path / "out"), split_file=str(split))
    dealt = read(tmp_path / "out", corpus)
    assert {role: [(r.path, r.span) for r in dealt[role]] for role in ROLES} == {
        "train": [(corpus / flac, (0, 800))],
        "calibrate": [(corpus / flac, (800, 1280))],
        "test": [(corpus / flac, (1280, 1600))],
    }


def test_missing_or_empty_subset_is_an_error(prepare, corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="test-other is not a folder; --data_folder must"):
        prepare(str(corpus), str(tmp_path / "out"), subsets=["test-other"])
    (corpus / "empty").mkdir()
    with pytest.raises(InputError, match="no utterance found below"):
        prepare(str(corpus), str(tmp_path / "out"), subsets=["empty"])
