"""A crash never looks like a result: what goes wrong has a message and an exit code of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nip_audio.cli import _exit
from nip_audio.screening.journal import JOURNAL_NAME, from_line

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/enrolment"
RECORDING = DEMO / "alba/alba-1.flac"
RESULTS = {0, _exit.EXIT_FLAGGED, _exit.EXIT_FAILED, _exit.EXIT_FLAGGED_AND_FAILED}
COMMAND = [sys.executable, "-m", "nip_audio"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc or /dev/full")

Done = subprocess.CompletedProcess[str]
Stub = Callable[..., dict[str, str]]


def environment(*before: Path) -> dict[str, str]:
    path = os.pathsep.join([*map(str, before), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}


def start(*arguments: object, env: dict[str, str] | None = None, **options: object) -> Done:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=env or environment(),
        text=True,
        check=False,
        **{"capture_output": True} | options,
    )


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """Put a package in front of the installed one of its name; returns the environment."""

    def put(name: str, code: str) -> dict[str, str]:
        folder = tmp_path / "stubs" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(code)
        return environment(folder.parent)

    return put


def test_codes_are_none_of_pythons_and_all_different():
    codes = [value for name, value in vars(_exit).items() if name.startswith("EXIT_")]
    assert len(set(codes)) == len(codes)
    assert not {1, 2} & set(codes)


@pytest.mark.parametrize(
    ("package", "error"),
    [
        *[("torch", error) for error in ("ImportError", "OSError", "RuntimeError")],
        *[(package, "ImportError") for package in ("numpy", "soundfile", "typer", "rich")],
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(stub, package, error):
    env = stub(package, f"raise {error}('lib{package}.so: undefined symbol: _ZN3')")
    done = start("detect", RECORDING, env=env)
    assert done.returncode == _exit.EXIT_DEFECT
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"the package {package} cannot be loaded ({error}: lib{package}.so: undefined" in line
    assert "run nip-audio doctor" in line
    pair = "reinstall torch and torchaudio as a pair, from the same index"
    assert (pair in line) == package.startswith("torch")


def test_screen_with_a_broken_installation_leaves_no_results(stub, tmp_path):
    env = stub("torchaudio", "raise OSError('libtorchaudio.so: undefined symbol: _ZN3')")
    done = start("screen", DEMO, "--out", tmp_path / "report", env=env)
    assert done.returncode == _exit.EXIT_DEFECT
    assert "torchaudio cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_package", "the package no_such_package is not installed"),
        ("", "the package torch cannot be loaded (ImportError: cannot import name"),
        ("raise SystemExit(1)", "the package torch cannot be loaded (SystemExit: 1)"),
        ("raise SystemExit(0)", "the package torch cannot be loaded (SystemExit: 0)"),
        ("raise MemoryError", "there is too little memory"),
        (
            "raise ImportError('a.so: failed to map segment from shared object')",
            "there is too little memory (a.so",
        ),
        ("raise ImportError('a.so: cannot allocate memory in static TLS block')", "torch cannot"),
    ],
)
def test_what_a_package_does_at_import_is_no_result(stub, code, said):
    done = start("detect", RECORDING, env=stub("torch", code))
    assert done.returncode == _exit.EXIT_DEFECT
    (line,) = done.stderr.splitlines()
    assert said in line


@LINUX
def test_too_little_memory_to_load_is_no_result():
    limited = f"ulimit -v 1500000; exec {sys.executable} -m nip_audio detect {RECORDING}"
    done = subprocess.run(
        ["bash", "-c", limited], env=environment(), capture_output=True, text=True, check=False
    )
    # a library of C may abort before Python hears of it: by a signal, which is no result either
    assert done.returncode == _exit.EXIT_DEFECT or done.returncode < 0
    if done.returncode == _exit.EXIT_DEFECT:
        assert "Traceback" not in done.stderr
        assert "too little memory" in done.stderr


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("SystemExit(1)", "a library ended the program with 1"),
        ("SystemExit(0)", "a library ended the program with 0"),
        ("RuntimeError('a bug')", "this is a defect of nip-audio"),
        ("MemoryError", "there is too little memory"),
        ("RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", "too little memory"),
        ("ValueError('odd')", "this is a defect"),
    ],
)
def test_what_a_library_raises_is_no_result(run, monkeypatch, failure, said):
    def fail(*arguments, **options):
        raise eval(failure)

    monkeypatch.setattr("nip_audio.cli._inputs.load_model", fail)
    code, out, err = run("detect", RECORDING)
    assert (code, out) == (_exit.EXIT_DEFECT, "")
    assert said in err


def test_what_is_raised_while_an_import_is_under_way_is_that_packages(run, monkeypatch, tmp_path):
    """However deep it lies: the last package that was being imported is the broken one."""
    for name, code in (("outer_stub", "import inner_stub"), ("inner_stub", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    def fail(*arguments, **options):
        import outer_stub  # noqa: F401

    monkeypatch.setattr("nip_audio.cli._inputs.load_model", fail)
    code, _, err = run("detect", RECORDING)
    assert code == _exit.EXIT_DEFECT
    assert "the package inner_stub cannot be loaded (ZeroDivisionError: division by zero)" in err


CLOSED = [["--help"], ["--version"], ["models"], ["models", "--json"], ["detect", "--help"]]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [*CLOSED, ["detect", RECORDING, "--json"]], ids=str)
def test_a_closed_pipe_ends_quietly(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    env = environment() | {"PYTHONUNBUFFERED": unbuffered}
    try:
        done = start(
            *arguments, env=env, capture_output=False, stdout=writing, stderr=subprocess.PIPE
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (_exit.EXIT_PIPE_CLOSED, "")


def test_who_does_not_listen_to_messages_still_gets_the_result(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    given = ("detect", RECORDING, tmp_path / "none.wav", "--json")
    try:
        done = start(*given, capture_output=False, stdout=subprocess.PIPE, stderr=writing)
    finally:
        os.close(writing)
    assert done.returncode in {_exit.EXIT_FAILED, _exit.EXIT_FLAGGED_AND_FAILED}
    assert len(json.loads(done.stdout)) == 2


@LINUX
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "--json"]], ids=str)
def test_a_full_disk_is_said(arguments, unbuffered):
    env = environment() | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = start(*arguments, env=env, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == _exit.EXIT_OUTPUT
    (line,) = done.stderr.splitlines()
    assert re.search("cannot write standard output.*the disk is full; free some space", line)


def wait_for(process: subprocess.Popen[str], found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def started(given: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command that hears SIGINT, even where the tests run in the background of a shell,
    which makes its children ignore it; whatever the test finds, the command ends with it."""
    process = subprocess.Popen(
        given,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


SIGNALS = [
    (signal.SIGINT, _exit.EXIT_INTERRUPTED, "interrupted; files written so far are kept"),
    (signal.SIGTERM, _exit.EXIT_TERMINATED, "terminated; files written so far are kept"),
]


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_during_imports(stub, tmp_path, number, code, said):
    ready = tmp_path / "ready"
    slow = f"import pathlib, time\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    env = stub("torch", slow)
    with started([*COMMAND, "detect", str(RECORDING)], env) as process:
        wait_for(process, ready.exists)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    (line,) = err.splitlines()
    assert said in line


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_leaves_the_journal_whole(tmp_path, number, code, said):
    out = tmp_path / "report"
    given = [*COMMAND, "screen", str(DEMO), "--out", str(out), "--watch", "0", "--workers", "1"]
    journal = out / JOURNAL_NAME
    with started(given, environment()) as process:
        wait_for(process, lambda: journal.exists() and journal.stat().st_size > 0)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert said in err
    assert "Traceback" not in err
    lines = journal.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") and from_line(line) for line in lines)


def test_a_termination_that_a_library_swallows_is_none_of_the_results(run, monkeypatch):
    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:  # noqa: BLE001 - what is tested
            return []
        raise AssertionError("no signal came")

    monkeypatch.setattr("nip_audio.cli.models.list_pretrained", swallow)
    code, _, err = run("models", "--json")
    assert code == _exit.EXIT_TERMINATED
    assert "terminated" in err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_termination_that_is_swallowed_comes_again(run, monkeypatch):
    monkeypatch.setattr("nip_audio.cli._failures._AGAIN_S", 0.1)

    def never_end():
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)

    monkeypatch.setattr("nip_audio.cli.models.list_pretrained", never_end)
    code, _, err = run("models", "--json")
    assert code == _exit.EXIT_TERMINATED
    assert "terminated" in err
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def documented() -> list[tuple[str, int]]:
    table = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\| `([^`]+)` \|$", table, re.MULTILINE)
    return [(command.replace("\\|", "|"), int(code)) for code, command in rows]


def test_every_code_is_documented():
    codes = {value for name, value in vars(_exit).items() if name.startswith("EXIT_")}
    assert {code for _, code in documented()} == codes


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), documented(), ids=str)
def test_the_documented_command_exits_with_the_code(command, code, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tool = tmp_path / "bin" / "nip-audio"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m nip_audio "$@"\n')
    tool.chmod(0o755)
    env = environment() | {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}
    script = f"set -o pipefail\n{command}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("code", [0, 3, 4, 5, 130, 143, 65, 70, 1, 137])
def test_the_nightly_job_tells_results_from_crashes(code, tmp_path):
    text = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
    (job,) = re.findall(r"### Nightly job.*?```sh\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        ["sh", "-c", f"nip_audio() {{ return {code}; }}\n" + job.replace("nip-audio", "nip_audio")],
        capture_output=True,
        text=True,
        check=False,
    )
    word = {0: "clean", 3: "flagged:", 4: "partly judged", 5: "flagged, and", 130: "stopped"}
    expected = word.get(code, "stopped" if code == 143 else "failed")
    assert (done.stdout + done.stderr).startswith(expected)
    assert done.returncode == int(expected == "failed")
    assert (code in RESULTS) == (expected in {"clean", "flagged:", "partly judged", "flagged, and"})


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, _exit.EXIT_INTERRUPTED), (signal.SIGTERM, _exit.EXIT_TERMINATED)],
)
def test_a_signal_is_not_lost_where_a_c_library_calls_back(run, monkeypatch, number, code):
    """soundfile prints what is raised in its callbacks, and goes on."""
    import io

    import soundfile

    raw = RECORDING.read_bytes()
    sent = []

    class Slow(io.BytesIO):
        def read(self, *size):
            if not sent:
                sent.append(number)
                signal.raise_signal(number)
            return super().read(*size)

        def readinto(self, buffer):
            if not sent:
                sent.append(number)
                signal.raise_signal(number)
            return super().readinto(buffer)

    def decode():
        for _ in range(1000):
            soundfile.read(Slow(raw))
            time.sleep(0.01)
        return []

    monkeypatch.setattr("nip_audio.cli.models.list_pretrained", decode)
    # a shell makes what it runs in the background ignore SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found, _, err = run("models", "--json")
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent == [number]
    assert found == code
    assert "Traceback" not in err
