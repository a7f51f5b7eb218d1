"""Every write, fsync, rename and removal of a small run fails once, or is its last.

Afterwards nothing is published that does not belong together, and the same command again ends with
the very bytes of an undisturbed run.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile

from nip_audio.errors import OutputError, ResumeError
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.journal import JOURNAL_NAME
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.sources import FolderSource

PUBLISHED = ("results.jsonl", "speakers.jsonl", "summary.json")
Act = Callable[[], None]


class Calls:
    """Counts the calls that change a disk, and acts at one of them."""

    def __init__(self, place: int | None, act: Act) -> None:
        self.place, self.act, self.count = place, act, 0

    def step(self) -> bool:
        """Count a call; tell whether it is the one."""
        self.count += 1
        return self.count - 1 == self.place


class Raw(io.FileIO):
    """A file of which one write is torn: half of it is written."""

    calls: Calls

    def write(self, data):
        if not self.calls.step():
            return super().write(data)
        super().write(bytes(data)[: len(data) // 2])
        self.calls.act()
        raise AssertionError("the call must not go on")

    def truncate(self, size=None):
        if self.calls.step():
            self.calls.act()
        return super().truncate(size)


@contextmanager
def injected(place: int | None, act: Act) -> Iterator[Calls]:
    """Let something happen at the call of this number; None only counts."""
    calls = Calls(place, act)
    raw = type("Injected", (Raw,), {"calls": calls})
    real = io.open

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **rest):
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, encoding, errors, newline, **rest)
        plain = raw(file, mode.replace("b", "").replace("t", ""), **rest)
        if buffering == 0:
            return plain
        binary = io.BufferedWriter(plain)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    def counted(name):
        function = getattr(os, name)

        def call(*args, **kwargs):
            idle = (name == "open" and not args[1] & os.O_CREAT) or (
                name == "mkdir" and os.path.isdir(args[0])
            )
            if not idle and calls.step():
                act()
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        for name in ("fsync", "replace", "unlink", "mkdir", "open", "chmod"):
            patch.setattr(os, name, counted(name))
        yield calls


def fail(number: int) -> Act:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def quick(screener, folder, monkeypatch):
    """A screener whose model answers at once, with what it answered before."""
    for path in [*folder.glob("s2/*"), *folder.glob("s1/take12.wav")]:
        path.unlink()
    real, known = FileMeasurer.measure_item, {}

    def measure(self, item):
        if item.sha256 not in known:
            known[item.sha256] = real(self, item)
        return known[item.sha256]

    monkeypatch.setattr(FileMeasurer, "measure_item", measure)
    return screener


def bytes_of(out: Path, *names: str) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in names}


def published(out: Path) -> dict[str, bytes] | None:
    """What a reader gets; None if it is refused, and it is checked that it belongs together."""
    try:
        run = ScreenedRun.open(out)
        list(run.files())
        list(run.speakers())
    except ResumeError:
        return None
    return bytes_of(out, *PUBLISHED)


def run(screener, folder: Path, out: Path) -> None:
    screener.screen(FolderSource(folder), out)


def dies(screener, folder: Path, out: Path, place: int) -> None:
    """Run in a process of its own, which is killed at a call."""
    pid = os.fork()
    if not pid:
        try:
            with injected(place, die):
                run(screener, folder, out)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"nothing happened at call {place}"


def fails(screener, folder: Path, out: Path, place: int) -> None:
    number = (errno.ENOSPC, errno.EIO)[place % 2]
    with injected(place, fail(number)), pytest.raises(OutputError) as caught:
        run(screener, folder, out)
    assert os.strerror(number) in str(caught.value)


@pytest.mark.parametrize("fault", [dies, fails])
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "again"])
def test_whatever_call_fails_or_is_the_last_the_next_run_ends_the_same(
    quick, folder, voice, tmp_path, fault, earlier
):
    start = tmp_path / "start"
    if earlier:  # what is published is replaced, and one file is measured again
        run(quick, folder, start)
        soundfile.write(folder / "s0/take11.wav", voice(0, 19), 16000, "PCM_16")
    whole = tmp_path / "whole"
    if earlier:
        shutil.copytree(start, whole)
    before = published(start) if earlier else None
    with injected(None, die) as calls:
        run(quick, folder, whole)
    after = bytes_of(whole, *PUBLISHED)
    assert calls.count > (10 if earlier else 20)
    assert before != after
    for place in range(calls.count):
        out = tmp_path / f"out{place}"
        if earlier:
            shutil.copytree(start, out)
        fault(quick, folder, out, place)
        if out.exists():
            assert published(out) in (None, before, after), f"at call {place}"
        run(quick, folder, out)
        assert bytes_of(out, *PUBLISHED, JOURNAL_NAME) == bytes_of(
            whole, *PUBLISHED, JOURNAL_NAME
        ), f"at call {place}"
        assert {entry.name for entry in out.iterdir()} == {entry.name for entry in whole.iterdir()}
        shutil.rmtree(out)
