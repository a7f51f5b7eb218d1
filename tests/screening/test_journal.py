"""A journal that a disk damaged: each flipped bit is noticed, and its file is measured again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nip_audio.errors import ResumeError
from nip_audio.screening.journal import JOURNAL_NAME, Journal, from_line, to_line
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import CRASHED, RETRY, MeasuredFile
from nip_audio.screening.sources import FolderSource

FLIPS = 300


@pytest.fixture
def line(screener, folder) -> bytes:
    return to_line(screener.measurer(FolderSource(folder).find("s1/take11.wav")))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_line_is_an_error(line):
    bits = random.Random(0).sample(range(8 * (len(line) - 1)), FLIPS)
    assert from_line(line).id == "s1/take11.wav"
    for bit in {*bits, 0, 5, 64, 8 * (len(line) - 1) - 1}:
        with pytest.raises(ResumeError, match="expected a measured file"):
            from_line(flipped(line, bit))


def test_a_flipped_bit_changes_no_verdict(screener, folder, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    screener.screen(FolderSource(folder), out)
    names = ("results.jsonl", "speakers.jsonl", "summary.json")
    before = {name: (out / name).read_bytes() for name in names}
    whole = (out / JOURNAL_NAME).read_bytes()
    measured, real = [], FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: (measured.append(r.id), real(self, r))[1]
    )
    rng = random.Random(1)
    for _ in range(10):
        measured.clear()
        (out / JOURNAL_NAME).write_bytes(flipped(whole, rng.randrange(8 * len(whole))))
        screener.screen(FolderSource(folder), out)
        assert {name: (out / name).read_bytes() for name in names} == before
        assert 1 <= len(measured) <= 2  # two if the break between two lines is gone


def test_a_line_that_was_damaged_after_it_was_opened_is_an_error(tmp_path, line):
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(line)
    with Journal(path) as journal:
        path.write_bytes(flipped(line, 4000))
        with pytest.raises(ResumeError, match="checksum"):
            journal.read("s1/take11.wav")


def test_a_new_stamp_is_kept_and_costs_no_second_measurement(tmp_path, line):
    path = tmp_path / JOURNAL_NAME
    file = from_line(line)
    with Journal(path) as journal:
        journal.append(file)
        journal.restamp(file.id, "1:2:3:4")
    with Journal(path) as journal:
        assert journal.stamp(file.id) == "1:2:3:4"
        assert journal.read(file.id).facts == file.facts
        assert len(journal) == 1
    assert len(path.read_bytes()) < len(line) + 100


def test_knows_what_crashed_last(tmp_path, line):
    error = {"code": CRASHED, "found": "it did", "remedy": "remove it"}
    file = from_line(line)
    with Journal(tmp_path / JOURNAL_NAME) as journal:
        journal.append(MeasuredFile("bad", None, RETRY, error=error))
        journal.append(replace(file, id="good"))
        assert journal.crashed("bad")
        assert not journal.crashed("good")
        assert not journal.crashed("unknown")


def test_lines_are_made_durable_in_batches(tmp_path, line, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(handle))
    file = from_line(line)
    with Journal(tmp_path / JOURNAL_NAME) as journal:
        for number in range(130):
            journal.append(replace(file, id=str(number)))
        assert 2 <= len(synced) <= 20  # every 64 lines, or 2 s
        journal.sync()
        journal.sync()  # nothing is left to be synced
    assert 3 <= len(synced) <= 21
