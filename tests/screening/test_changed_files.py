"""A file that is replaced, moved, touched or still being written: its content decides."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from nip_audio.audio.manifest import Recording
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.measured import RETRY
from nip_audio.screening.sources import FolderSource, ManifestSource
from nip_audio.screening.stamps import same_file, stamp_of

NAME = "s1/take11.wav"


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Ids of the files that are measured from now on."""
    ids, real = [], FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: (ids.append(r.id), real(self, r))[1]
    )
    return ids


@pytest.fixture
def other(voice, tmp_path) -> Path:
    """Another recording of the same length."""
    path = tmp_path / "other.wav"
    soundfile.write(path, voice(7, 3), 16000, "PCM_16")
    return path


def forge(path: Path, content: Path, how: str) -> None:
    """Replace a file by another of the same size, and give it the same modification time."""
    before = path.stat()
    if how == "renamed":
        shutil.copy(content, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
    else:
        path.write_bytes(content.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def sha256_of(result, name: str = NAME) -> str:
    (found,) = (record.sha256 for record in result.results.files() if record.id == name)
    return found


@pytest.mark.parametrize("how", ["renamed", "in place"])
def test_a_file_of_equal_size_and_time_is_measured_anew(
    screener, folder, tmp_path, measured, other, how
):
    out = tmp_path / "out"
    first = sha256_of(screener.screen(FolderSource(folder), out))
    forge(folder / NAME, other, how)
    measured.clear()
    second = screener.screen(FolderSource(folder), out)
    assert measured == [NAME]
    assert sha256_of(second) != first
    fresh = screener.screen(FolderSource(folder), tmp_path / "fresh")
    assert list(second.results.files()) == list(fresh.results.files())


def test_whoever_trusts_times_keeps_the_old_record(screener, folder, tmp_path, measured, other):
    out = tmp_path / "out"
    trusting = replace(screener, trust_mtime=True)
    first = sha256_of(trusting.screen(FolderSource(folder), out))
    forge(folder / NAME, other, "renamed")
    measured.clear()
    assert sha256_of(trusting.screen(FolderSource(folder), out)) == first
    assert measured == []
    assert sha256_of(screener.screen(FolderSource(folder), out)) != first  # and no longer


def test_a_folder_that_was_moved_or_touched_is_read_but_not_measured(
    screener, folder, tmp_path, measured, monkeypatch
):
    out = tmp_path / "out"
    screener.screen(FolderSource(folder), out)
    before = {path: path.stat() for path in folder.rglob("*.*")}
    for path in before:
        path.write_bytes(path.read_bytes())  # the same content, as a backup restores it
    measured.clear()
    screener.screen(FolderSource(folder), out)
    assert measured == []
    read = []
    monkeypatch.setattr(
        "nip_audio.screening.pipeline.has_content", lambda *args: read.append(args) or True
    )
    screener.screen(FolderSource(folder), out)  # the new stamps were kept
    assert read == []


def test_an_id_that_a_manifest_gives_to_another_file_is_measured_anew(
    screener, folder, tmp_path, measured, other
):
    path, manifest = folder / NAME, tmp_path / "list.csv"
    os.utime(other, ns=(1, path.stat().st_mtime_ns))
    out = tmp_path / "out"
    for chosen in (path, other):
        measured.clear()
        source = ManifestSource(manifest, [Recording("a", chosen, "s1")])
        screener.screen(source, out)
        assert measured == ["a"]


def test_only_equal_stamps_prove_that_nothing_changed(folder, tmp_path):
    recording = FolderSource(folder).find(NAME)
    stamp = stamp_of(recording)
    assert same_file(stamp, stamp_of(recording))
    os.utime(recording.path, (5, 5))
    assert not same_file(stamp, stamp_of(recording))
    assert not same_file("4000:", "4000:")  # a server that reports the size only
    assert same_file("4000:", "4000:", trust_mtime=True)
    assert not same_file('9:"a:b"', '9:"a:c"', trust_mtime=True)
    assert not same_file("9:1:1:1@(0, 5)", "9:1:1:1@(5, 9)", trust_mtime=True)


def replacing_while_read(monkeypatch, screener, path: Path, contents: list[bytes]) -> None:
    """Write the next content into a file whenever it has been read."""
    kind = type(screener.kind)
    real, left = kind.measure, iter(contents)

    def measure(self, *args, **kwargs):
        following = next(left, None)
        if following is not None:
            path.write_bytes(following)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(kind, "measure", measure)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    screener, folder, monkeypatch, other
):
    recording = FolderSource(folder).find(NAME)
    expected = other.read_bytes()
    replacing_while_read(monkeypatch, screener, recording.path, [expected])
    found = screener.measurer(recording)
    assert found.facts == screener.measurer(Recording(NAME, other, "s1")).facts
    assert found.stamp == stamp_of(recording)


def test_a_file_that_never_rests_is_no_result(screener, folder, tmp_path, monkeypatch):
    recording = FolderSource(folder).find(NAME)
    kept = recording.path.read_bytes()
    replacing_while_read(monkeypatch, screener, recording.path, [kept] * 4)
    found = screener.measurer(recording)
    assert (found.stamp, found.error["code"], found.facts) == (RETRY, "changing", None)
    result = screener.screen(FolderSource(folder), tmp_path / "out")  # it rests now
    assert result.summary.errors == {}


def test_a_watched_file_that_was_replaced_loses_its_old_record_at_once(
    screener, folder, tmp_path, other
):
    """Touched again and again it never comes to rest, and would stay clean for ever."""
    path = folder / NAME

    def looks():
        yield
        yield
        for _ in range(3):
            forge(path, other, "in place")
            os.utime(path)
            yield

    found = [
        {record.id for record in result.results.files()}
        for result in screener.watch(FolderSource(folder), tmp_path / "out", looks=looks())
    ]
    assert NAME in found[0]
    assert NAME not in found[-1]
