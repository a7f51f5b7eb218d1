from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.audio.corpus import (
    ROLES,
    Span,
    deal_roles,
    read_split,
    recording_of,
    write_manifests,
    write_rirs,
)
from nip_audio.errors import InputError

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]


def write_speaker(root: Path, speaker: str, count: int) -> list[tuple[Path, str]]:
    """Write files of 0.1 s; return them with their speaker."""
    (root / speaker).mkdir(parents=True)
    files = [root / speaker / f"{speaker}_{i:03d}.wav" for i in range(count)]
    for file in files:
        soundfile.write(file, np.full(800, 0.1), 8000)
    return [(file, speaker) for file in files]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "corpus"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_split(path: Path, *lines: str, header: str = "path,speaker,role,start_s,end_s") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("files", "dealt"),
    [
        (1, (1, 0, 0)),  # one or two files are for training alone
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),  # from three on, calibrate and test get one each before train gets more
        (5, (3, 1, 1)),
        (10, (8, 1, 1)),
        (40, (32, 4, 4)),
    ],
)
def test_files_of_a_speaker_are_dealt_by_the_shares(root, files, dealt):
    spans = deal_roles(root, write_speaker(root, "ann", files))
    counts = Counter(s.role for s in spans)
    assert tuple(counts[role] for role in ROLES) == dealt
    assert [s.path for s in spans] == [f"ann/ann_{i:03d}.wav" for i in range(files)]
    assert {(s.speaker, s.start_s, s.end_s) for s in spans} == {("ann", 0.0, 0.1)}


def test_shares_can_be_others(root):
    spans = deal_roles(root, write_speaker(root, "ann", 10), shares=(0.5, 0.2, 0.3))
    assert Counter(s.role for s in spans) == {"train": 5, "calibrate": 2, "test": 3}


def test_same_seed_same_deal_in_whatever_order_files_come(root):
    files = write_speaker(root, "ann", 10) + write_speaker(root, "bob", 10)
    spans = deal_roles(root, files, seed=1)
    assert deal_roles(root, reversed(files), seed=1) == spans
    assert deal_roles(root, files, seed=2) != spans
    tested = {s.path.split("_")[1] for s in spans if s.role != "train"}
    assert len(tested) > 2  # speakers are not dealt alike


def test_one_more_speaker_does_not_deal_the_others_anew(root):
    files = write_speaker(root, "bob", 10)
    before = deal_roles(root, files)
    after = deal_roles(root, write_speaker(root, "ann", 10) + files)
    assert [s for s in after if s.speaker == "bob"] == before


def test_split_and_manifests_are_exact_to_the_sample(root, tmp_path):
    write_speaker(root, "ann", 1)
    split = write_split(
        tmp_path / "split.csv",
        "x,ann/ann_000.wav,ann,train,0,0.05",
        "x,ann/ann_000.wav,ann,test,0.05,9.0",  # ends with the file
        header="note,path,speaker,role,start_s,end_s",  # a column more does no harm
    )
    spans = read_split(split)
    assert spans == [
        Span("ann/ann_000.wav", "ann", "train", 0.0, 0.05),
        Span("ann/ann_000.wav", "ann", "test", 0.05, 9.0),
    ]
    write_manifests(root, spans, tmp_path / "new/out")
    (train,), (test,) = rows(tmp_path / "new/out", "train"), rows(tmp_path / "new/out", "test")
    assert train == {
        "ID": "ann_000_0_400",
        "duration": "0.05",
        "wav": "$data_root/ann/ann_000.wav",
        "start": "0",
        "stop": "400",
        "spk_id": "ann",
    }
    assert (test["ID"], test["start"], test["stop"]) == ("ann_000_400_800", "400", "800")
    assert (tmp_path / "new/out/calibrate.csv").read_text().splitlines() == [",".join(COLUMNS)]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a.wav,ann,dev,0,1", "role 'dev', expected one of train, calibrate, test"),
        ("a.wav,ann,train,0,end", "line 2: start_s and end_s must be seconds"),
        ("a.wav,ann,train,0", "line 2: start_s and end_s must be seconds"),
    ],
)
def test_bad_line_of_a_split_is_an_error(tmp_path, line, match):
    with pytest.raises(InputError, match=match):
        read_split(write_split(tmp_path / "split.csv", line))


def test_without_times_a_row_is_a_whole_file(root, tmp_path):
    write_speaker(root, "ann", 1)
    split = write_split(
        tmp_path / "split.csv", "ann/ann_000.wav,ann,train", header="path,speaker,role"
    )
    (span,) = read_split(split)
    assert recording_of(root, span).span == (0, 800)


@pytest.mark.parametrize("times", ["nan,1", "0,nan", "inf,inf", "-1,1", "0.2,0.1"])
def test_times_that_make_no_span_are_an_error(root, tmp_path, times):
    write_speaker(root, "ann", 1)
    split = write_split(tmp_path / "split.csv", f"ann/ann_000.wav,ann,train,{times}")
    (span,) = read_split(split)
    with pytest.raises(InputError, match="is empty or not in the file"):
        recording_of(root, span)


def test_split_lacking_a_column_is_an_error(tmp_path):
    with pytest.raises(InputError, match="column role is missing"):
        read_split(write_split(tmp_path / "split.csv", header="path,speaker,start_s"))


@pytest.mark.parametrize(
    ("name", "start_s", "end_s", "error", "match"),
    [
        ("no.wav", 0.0, 1.0, FileNotFoundError, "named by the split but missing"),
        ("ann_000.wav", 0.1, 0.2, InputError, "0.1–0.2 s is empty or not in the file"),
        ("ann_000.wav", 0.05, 0.05, InputError, "is empty or not in the file"),
        ("ann_000.wav", -0.05, 0.05, InputError, "is empty or not in the file"),
    ],
)
def test_bad_span_is_an_error(root, tmp_path, name, start_s, end_s, error, match):
    write_speaker(root, "ann", 1)
    span = Span(f"ann/{name}", "ann", "train", start_s, end_s)
    with pytest.raises(error, match=match):
        write_manifests(root, [span], tmp_path / "out")


def test_no_span_at_all_is_an_error_and_writes_nothing(root, tmp_path):
    with pytest.raises(InputError, match="no utterance found below .*corpus; check the folder"):
        write_manifests(root, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rirs_start_with_the_direct_path_decay_and_repeat(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_rirs(tmp_path / name, count=3, seed=seed)
    listed = rows(tmp_path / "a", "rirs")
    assert list(listed[0]) == ["ID", "duration", "wav", "wav_format", "wav_opts"]
    assert [r["ID"] for r in listed] == ["rir000", "rir001", "rir002"]
    for row in listed:
        response, rate = soundfile.read(row["wav"])
        assert rate == 16000
        assert 0.15 <= len(response) / rate <= 0.8
        assert float(row["duration"]) == pytest.approx(len(response) / rate, abs=1e-4)
        assert response[0] == np.abs(response).max() == 1.0
        assert (response[1:40] == 0).all()  # 2.5 ms until the first reflection
        # 60 dB over the length: the last tenth lies 54 to 60 dB below the start of the tail
        tenth = len(response) // 10
        drop = np.std(response[-tenth:]) / np.std(response[40 : 40 + tenth])
        assert -60 < 20 * np.log10(drop) < -45
        ratio_db = -10 * np.log10(np.sum(response[1:] ** 2))
        assert 0.0 <= ratio_db <= 16.0
    # not the files' bytes: the header of a wav of floats holds the time
    same = [soundfile.read(tmp_path / n / "rirs" / "rir000.wav")[0] for n in "abc"]
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])
