"""A screening meets kills, full disks, other runs, wrong clocks: nothing lost, nothing twice.

    NIP_AUDIO_KILLS=50 pytest tests/screening/test_faults.py -k killed

kills as often as one likes; three times is what a test run does.
"""

from __future__ import annotations

import multiprocessing.forkserver
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from nip_audio.audio.manifest import Recording
from nip_audio.cli._exit import EXIT_REFUSED
from nip_audio.errors import InputError, OutputError, WorkerError
from nip_audio.screening.engines import local
from nip_audio.screening.engines.base import MeasurerRecipe
from nip_audio.screening.engines.crumb import CRUMB_NAME
from nip_audio.screening.engines.local import LocalEngine
from nip_audio.screening.journal import JOURNAL_NAME
from nip_audio.screening.measure import FileMeasurer
from nip_audio.screening.sources import FolderSource
from tests.processes import Started, start_python

WRITTEN = ("results.jsonl", "speakers.jsonl", "summary.json", JOURNAL_NAME)
KILLS = int(os.environ.get("NIP_AUDIO_KILLS", "3"))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def assert_same(one: Path, other: Path) -> None:
    for name in WRITTEN:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


class Cli:
    """Starts ``nip-audio screen`` as a process in a session of its own."""

    def __init__(self, folder: Path, calibration: Path) -> None:
        self.arguments = [folder, "--fpr", "0.05", "--calibration", calibration, "--seed", 0]
        self.log = calibration.with_name("stderr")

    def start(self, out: Path, *, workers: int = 1) -> Started:
        given = ("screen", *self.arguments, "--out", out, "--workers", workers)
        return start_python("nip_audio", *given, log=self.log)


@pytest.fixture
def cli(calibration, folder, tmp_path) -> Cli:
    calibration.save(tmp_path / "quick.calibration")
    return Cli(folder, tmp_path / "quick.calibration")


def in_session(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            after_name = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(after_name[3]) == session and after_name[0] != "Z":
            found.append(int(entry.name))
    return found


def wait_until_gone(session: int, seconds: float = 180.0) -> None:
    # a worker looks for its parent once it has started; importing may take long on a busy machine
    deadline = time.monotonic() + seconds
    while left := in_session(session):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


@LINUX
@pytest.mark.slow
def test_survives_being_killed_at_any_moment(cli, folder, voice, tmp_path):
    for take in range(20, 20 + min(KILLS, 50) // 2):
        soundfile.write(folder / f"s{take % 3}/take{take}.wav", voice(take % 3, take), 16000)
    started = time.monotonic()
    assert cli.start(tmp_path / "undisturbed").wait() in (0, 3, 4, 5), cli.log.read_text()
    duration = time.monotonic() - started
    whole = (tmp_path / "undisturbed" / JOURNAL_NAME).stat().st_size
    rng, killed, finished, code = random.Random(0), 0, 0, None
    out = tmp_path / "killed"
    journal = out / JOURNAL_NAME
    while killed < KILLS or code == -signal.SIGKILL:
        process = cli.start(out, workers=rng.choice((1, 2)))
        if killed < KILLS:
            if rng.random() < 0.8:  # while it measures or judges: starting takes most of the time
                size = journal.stat().st_size if journal.exists() else 0
                size += rng.uniform(0, 1.2) * (whole - size)
                while process.poll() is None and not (
                    journal.exists() and journal.stat().st_size >= min(size, whole)
                ):
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.2))
            else:
                time.sleep(rng.uniform(0, duration))
            killed += process.poll() is None
            process.kill()
        code = process.wait()
        wait_until_gone(process.pid)
        sys.stdout.write(f"{killed} kills, {finished} runs finished; exit {code}\n")
        sys.stdout.flush()
        if code == -signal.SIGKILL:
            continue
        assert code in (0, 3, 4, 5), cli.log.read_text()
        assert_same(out, tmp_path / "undisturbed")
        finished += 1
        shutil.rmtree(out)


@LINUX
@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused(cli, screener, folder, tmp_path):
    out = tmp_path / "out"
    first = cli.start(out)
    while not (out / "run.json").exists():
        assert first.poll() is None
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # however long the second takes to start
    second = cli.start(out)
    assert second.wait() == EXIT_REFUSED
    assert b"another run is writing" in b" ".join(cli.log.read_bytes().split())
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() in (0, 3)
    screener.screen(FolderSource(folder), tmp_path / "other")
    for name in ("results.jsonl", "speakers.jsonl", JOURNAL_NAME):
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: writing fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [10, 5000, 20000])
def test_goes_on_where_the_disk_was_full(screener, folder, tmp_path, size):
    screener.screen(FolderSource(folder), tmp_path / "undisturbed")
    with no_file_beyond(size), pytest.raises(OutputError, match=r"cannot be written"):
        screener.screen(FolderSource(folder), tmp_path / "out")
    assert not (tmp_path / "out/results.jsonl").exists()
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert_same(tmp_path / "out", tmp_path / "undisturbed")


def test_a_full_disk_leaves_the_results_there_were(screener, folder, tmp_path, monkeypatch):
    screener.screen(FolderSource(folder), tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN}
    monkeypatch.setattr(FileMeasurer, "__call__", lambda *_: pytest.fail("measured again"))
    for size in (100, 2000):
        with no_file_beyond(size), pytest.raises(OutputError, match=r"cannot be written"):
            screener.screen(FolderSource(folder), tmp_path / "out")
        assert {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN} == before
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN} == before


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own that holds 64 KiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_goes_on_where_a_real_disk_was_full_or_read_only(screener, folder, tmp_path, small_disk):
    screener.screen(FolderSource(folder), tmp_path / "undisturbed")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(44 << 10))
    with pytest.raises(OutputError, match="No space left on device"):
        screener.screen(FolderSource(folder), small_disk / "out")
    filler.unlink()
    remount = lambda how: subprocess.run(  # noqa: E731
        ["mount", "-o", f"remount,{how}", str(small_disk)], check=True
    )
    remount("ro")
    for out in ("out", "new"):
        with pytest.raises(OutputError, match="Read-only file system"):
            screener.screen(FolderSource(folder), small_disk / out)
    remount("rw,size=1m")
    screener.screen(FolderSource(folder), small_disk / "out")
    assert_same(small_disk / "out", tmp_path / "undisturbed")


def test_an_output_that_cannot_be_written_is_refused(screener, folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be created"):
        screener.screen(FolderSource(folder), tmp_path / "file" / "out")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="cannot be created"):
            screener.screen(FolderSource(folder), tmp_path / "shut" / "out")


def test_no_clock_has_to_be_right(screener, folder, tmp_path, voice, monkeypatch):
    future = 4_000_000_000
    for path in folder.rglob("*.wav"):
        os.utime(path, (future, future))
    screener.screen(FolderSource(folder), tmp_path / "out")
    measured, real = [], FileMeasurer.__call__
    monkeypatch.setattr(
        FileMeasurer, "__call__", lambda self, r: (measured.append(r.id), real(self, r))[1]
    )
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))  # runs backwards, from 2001
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert measured == []
    changed = folder / "s1/take11.wav"
    soundfile.write(changed, voice(1, 14), 16000, "PCM_16")
    os.utime(changed, (1000, 1000))  # older than what was measured
    screener.screen(FolderSource(folder), tmp_path / "out")
    assert measured == ["s1/take11.wav"]
    screener.screen(FolderSource(folder), tmp_path / "fresh")
    assert (tmp_path / "out/results.jsonl").read_bytes() == (
        tmp_path / "fresh/results.jsonl"
    ).read_bytes()


class Deadly(str):
    """A path that ends the process it is sent to, as a bug of a decoder would."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_file_that_brings_its_reader_down_is_a_record(screener, folder, voice):
    recordings = list(FolderSource(folder))[:5]
    bad = Recording("bad", Deadly(recordings[2].path), "s0")
    mixed = [*recordings[:2], bad, *recordings[2:]]
    found = list(LocalEngine(2).measure(screener.measurer, mixed))
    assert [file.id for file in found] == [recording.id for recording in mixed]
    assert found[2].error["code"] == "crashed"
    expected = list(LocalEngine(1).measure(screener.measurer, recordings))
    rest = [file for file in found if file.id != "bad"]
    assert [file.facts for file in rest] == [file.facts for file in expected]
    assert [file.error for file in rest] == [None] * 5


def test_with_one_worker_a_file_that_crashes_ends_one_run_and_is_a_record_of_the_next(
    screener, folder, tmp_path, monkeypatch
):
    """The decoder of one file brings the process down, in this process as in a worker."""
    out = tmp_path / "out"
    alone = replace(screener, engine=LocalEngine(1))
    deadly = "s1/take11.wav"
    real = FolderSource.__iter__

    def listed(self):
        for one in real(self):
            yield replace(one, path=Deadly(one.path)) if one.id == deadly else one

    def measuring(what: Callable[[], None]) -> None:
        monkeypatch.setattr(
            FileMeasurer, "__call__", lambda self, r: what() if r.id == deadly else whole(self, r)
        )

    whole = FileMeasurer.__call__
    monkeypatch.setattr(FolderSource, "__iter__", listed)
    measuring(lambda: os.kill(os.getpid(), signal.SIGKILL))
    pid = os.fork()
    if not pid:
        alone.screen(FolderSource(folder), out)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    measuring(lambda: pytest.fail("it would crash this process again"))
    for _ in range(2):  # nor does a later run that tries it again
        found = alone.screen(FolderSource(folder), out)
        assert (found.summary.errors, found.summary.files) == ({"crashed": 1}, 10)
        assert not (out / CRUMB_NAME).exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "no_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "no_memory"),
        (RuntimeError("Calculated padded input size per channel: (3)"), "failed"),
        (IndexError("list index out of range"), "failed"),
        (TypeError("'NoneType' object"), "failed"),
    ],
)
def test_what_a_library_raises_for_one_file_is_that_files_record(
    screener, folder, tmp_path, monkeypatch, error, code
):
    spoilt = screener.adapter.read(FolderSource(folder).find("s1/take11.wav")).sha256
    real = FileMeasurer.measure_item

    def measure(self, item):
        if item.sha256 == spoilt:
            raise error
        return real(self, item)

    monkeypatch.setattr(FileMeasurer, "measure_item", measure)
    result = screener.screen(FolderSource(folder), tmp_path / "out")
    assert result.summary.errors == {code: 1}
    assert result.summary.incomplete
    (record,) = (r for r in result.results.files() if r.error is not None)
    assert (record.id, record.verdict) == ("s1/take11.wav", "error")
    assert type(error).__name__ in record.error["found"]
    monkeypatch.setattr(FileMeasurer, "measure_item", real)  # it may have been passing
    assert screener.screen(FolderSource(folder), tmp_path / "out").summary.errors == {}


def test_what_was_no_fault_of_a_file_ends_the_run(screener, folder, tmp_path, monkeypatch):
    def measure(self, item):
        raise InputError("this model has no classifier")

    monkeypatch.setattr(FileMeasurer, "measure_item", measure)
    with pytest.raises(InputError, match="no classifier"):
        screener.screen(FolderSource(folder), tmp_path / "out")


def test_workers_that_cannot_start_are_no_record_of_any_file(screener, folder):
    recipe = replace(MeasurerRecipe.of(screener.measurer), model_id="0" * 64)
    with pytest.raises(WorkerError, match="before it was given a file.*run nip-audio doctor"):
        list(local._measure_in_pool(recipe, FolderSource(folder), 2))


def test_a_pool_that_broke_before_it_is_given_a_file_loses_nothing(screener, folder, monkeypatch):
    class Breaks(ProcessPoolExecutor):
        given = 0

        def submit(self, *args, **kwargs):
            Breaks.given += 1
            if Breaks.given == 10:  # more than it is given before the first answer is awaited
                raise BrokenProcessPool("a worker is gone")
            return super().submit(*args, **kwargs)

    recordings = list(FolderSource(folder))[:14]
    expected = list(LocalEngine(1).measure(screener.measurer, recordings))
    monkeypatch.setattr(local, "ProcessPoolExecutor", Breaks)
    found = list(LocalEngine(2).measure(screener.measurer, recordings))
    assert [file.id for file in found] == [recording.id for recording in recordings]
    assert [file.facts for file in found] == [file.facts for file in expected]
    assert [file.error for file in found] == [file.error for file in expected]


@LINUX
def test_a_worker_that_is_killed_loses_nothing(screener, folder, tmp_path):
    screener.screen(FolderSource(folder), tmp_path / "undisturbed")
    killed = []

    def kill_a_worker(recording_id: str) -> None:
        if len(killed) < 2:
            server = multiprocessing.forkserver._forkserver._forkserver_pid
            workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
            # one that was killed may still be listed
            for worker in [w for w in workers if w not in killed][-1:]:
                os.kill(int(worker), signal.SIGKILL)
                killed.append(worker)

    many = replace(screener, engine=LocalEngine(2))
    many.screen(FolderSource(folder), tmp_path / "out", progress=kill_a_worker)
    assert len(set(killed)) == 2
    assert_same(tmp_path / "out", tmp_path / "undisturbed")


def test_workers_do_not_run_the_script_that_screens(calibration, folder, tmp_path):
    """Without ``if __name__ == "__main__":`` a worker that imported it would screen again."""
    calibration.save(tmp_path / "quick.calibration")
    script = tmp_path / "script.py"
    script.write_text(
        "import nip_audio\n"
        f"run = nip_audio.screen({str(folder)!r}, {str(tmp_path / 'out')!r}, workers=2, fpr=0.05,\n"
        f"    calibration={str(tmp_path / 'quick.calibration')!r}, report=False)\n"
        "print(run.verdicts.get('error', 0), __file__ is not None)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, script], env=environment, check=False, capture_output=True, text=True
    )
    assert done.stdout == "0 True\n", done.stderr
