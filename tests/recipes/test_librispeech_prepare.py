from __future__ import annotations

import csv
import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio.manifest import read_manifest

RECIPE = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "librispeech_prepare.py"
SUBSETS = ("train-clean-100", "dev-clean")
COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]


@pytest.fixture(scope="module")
def recipe():
    """The recipe is a script's neighbour, not part of the package: load it by its path."""
    spec = importlib.util.spec_from_file_location("librispeech_prepare", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two speakers of ten utterances in one subset, one of five in another; 1 s each."""
    root = tmp_path / "LibriSpeech"
    rng = np.random.default_rng(0)
    for subset, speaker, count in ((*SUBSETS[:1], "19", 10), (SUBSETS[0], "103", 10)):
        write_speaker(root, subset, speaker, count, rng)
    write_speaker(root, SUBSETS[1], "7", 5, rng)
    (root / SUBSETS[0] / "README.TXT").write_text("not a speaker")
    return root


def write_speaker(root: Path, subset: str, speaker: str, count: int, rng) -> None:
    for i in range(count):
        chapter = str(100 + i % 2)
        path = root / subset / speaker / chapter / f"{speaker}-{chapter}-{i:04d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.1, 0.1, 16000), 16000)


def rows(folder: Path, role: str) -> list[dict[str, str]]:
    with (folder / f"{role}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_split(path: Path, *lines: str, header: str = "path,speaker,role,start_s,end_s") -> str:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def test_every_utterance_is_dealt_once_by_the_shares(recipe, corpus, tmp_path):
    recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), subsets=SUBSETS)
    dealt = {role: rows(tmp_path / "out", role) for role in recipe.ROLES}
    per_speaker = {
        role: [sum(r["spk_id"] == s for r in dealt[role]) for s in ("19", "103", "7")]
        for role in recipe.ROLES
    }
    # 0.8 : 0.1 : 0.1 of ten; of five, calibrate and test get one each before train gets its share
    assert per_speaker == {"train": [8, 8, 3], "calibrate": [1, 1, 1], "test": [1, 1, 1]}
    every = [r["wav"] for role in recipe.ROLES for r in dealt[role]]
    assert len(set(every)) == len(every) == 25
    first = dealt["train"][0]
    assert list(first) == COLUMNS
    assert (first["start"], first["stop"], first["duration"]) == ("0", "16000", "1.0")
    assert first["wav"].startswith("$data_root/")
    assert first["ID"].endswith("_0_16000")


def test_the_package_reads_what_the_recipe_writes(recipe, corpus, tmp_path):
    recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"))
    recordings = read_manifest(tmp_path / "out" / "train.csv", data_root=corpus)
    assert all(r.path.is_file() and r.span == (0, 16000) for r in recordings)
    assert {r.speaker for r in recordings} == {"19", "103"}


def test_same_seed_same_deal(recipe, corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        recipe.prepare_librispeech(str(corpus), str(tmp_path / name), seed=seed)
    for role in recipe.ROLES:
        assert rows(tmp_path / "a", role) == rows(tmp_path / "b", role)
    assert rows(tmp_path / "a", "test") != rows(tmp_path / "c", "test")


def test_one_more_speaker_does_not_deal_the_others_anew(recipe, corpus, tmp_path):
    recipe.prepare_librispeech(str(corpus), str(tmp_path / "before"))
    write_speaker(corpus, SUBSETS[0], "11", 10, np.random.default_rng(1))
    recipe.prepare_librispeech(str(corpus), str(tmp_path / "after"))
    for role in recipe.ROLES:
        others = [r for r in rows(tmp_path / "after", role) if r["spk_id"] != "11"]
        assert others == rows(tmp_path / "before", role)


def test_split_file_is_followed_to_the_sample(recipe, corpus, tmp_path):
    flac = f"{SUBSETS[0]}/19/100/19-100-0000.flac"
    split = write_split(
        tmp_path / "split.csv",
        f"{flac},19,train,0,0.5",
        f"{flac},19,test,0.5,9.0",  # ends with the file
        f"{SUBSETS[1]}/7/100/7-100-0000.flac,7,train,0,1",  # of a subset not asked for
    )
    recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), split_file=split)
    (train,), (test,) = rows(tmp_path / "out", "train"), rows(tmp_path / "out", "test")
    assert train == {
        "ID": "19-100-0000_0_8000",
        "duration": "0.5",
        "wav": f"$data_root/{flac}",
        "start": "0",
        "stop": "8000",
        "spk_id": "19",
    }
    assert (test["ID"], test["start"], test["stop"]) == ("19-100-0000_8000_16000", "8000", "16000")
    assert (tmp_path / "out" / "calibrate.csv").read_text().splitlines() == [",".join(COLUMNS)]


@pytest.mark.parametrize(
    ("line", "error", "match"),
    [
        ("{0}/19/100/no.flac,19,train,0,1", FileNotFoundError, "named by the split but missing"),
        ("{0}/19/100/19-100-0000.flac,19,dev,0,1", ValueError, "role 'dev', expected one of train"),
        ("{0}/19/100/19-100-0000.flac,19,train,1,2", ValueError, "is empty or past the file's end"),
        ("{0}/19/100/19-100-0000.flac,19,train,0.5,0.5", ValueError, "is empty or past"),
        (
            "other/19/100/19-100-0000.flac,19,train,0,1",
            ValueError,
            "no utterance of train-clean-100",
        ),
    ],
)
def test_bad_split_is_an_error(recipe, corpus, tmp_path, line, error, match):
    split = write_split(tmp_path / "split.csv", line.format(SUBSETS[0]))
    with pytest.raises(error, match=match):
        recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), split_file=split)


def test_split_lacking_a_column_is_an_error(recipe, corpus, tmp_path):
    split = write_split(tmp_path / "split.csv", header="path,speaker,start_s")
    with pytest.raises(ValueError, match="column end_s, role is missing"):
        recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), split_file=split)


def test_missing_or_empty_subset_is_an_error(recipe, corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="test-other is not a folder"):
        recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), subsets=["test-other"])
    (corpus / "empty").mkdir()
    with pytest.raises(ValueError, match="no utterance of empty found"):
        recipe.prepare_librispeech(str(corpus), str(tmp_path / "out"), subsets=["empty"])


def test_rirs_start_with_the_direct_path_decay_and_repeat(recipe, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        recipe.prepare_rirs(str(tmp_path / name), count=3, seed=seed)
    listed = rows(tmp_path / "a", "rirs")
    assert list(listed[0]) == ["ID", "duration", "wav", "wav_format", "wav_opts"]
    assert [r["ID"] for r in listed] == ["rir000", "rir001", "rir002"]
    for row in listed:
        response, rate = soundfile.read(row["wav"])
        assert rate == 16000
        assert 0.15 <= len(response) / rate <= 0.8
        assert response[0] == np.abs(response).max() == 1.0
        assert (response[1:40] == 0).all()  # 2.5 ms until the first reflection
        # 60 dB over the length: the last tenth lies 54 to 60 dB below the start of the tail
        tenth = len(response) // 10
        drop = np.std(response[-tenth:]) / np.std(response[40 : 40 + tenth])
        assert -60 < 20 * np.log10(drop) < -45
        ratio_db = -10 * np.log10(np.sum(response[1:] ** 2))
        assert 0.0 <= ratio_db <= 16.0
    same = [(tmp_path / n / "rirs" / "rir000.wav").read_bytes() for n in "abc"]
    assert same[0] == same[1] != same[2]


def test_hash_of_a_split(recipe, tmp_path):
    path = tmp_path / "split.csv"
    path.write_bytes(b"roles")
    assert recipe.file_sha256(str(path)) == hashlib.sha256(b"roles").hexdigest()
