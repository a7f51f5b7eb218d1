"""No process imports a module that lies beside the data, and no name is looked up there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nip_audio.cli import main
from nip_audio.cli._exit import EXIT_FAILED

ROOT = Path(__file__).parents[1]
SCRIPT = """import sys
from nip_audio.cli import main
sys.exit(main())
"""
# a few files are several batches of several chunks
RAY_SCRIPT = """import sys
from functools import partial
from nip_audio.cli import main
from nip_audio.screening.engines import ray
ray.RayEngine = partial(ray.RayEngine, batch=2, chunk=7)
sys.exit(main())
"""
TRACE = "trace.txt"
WRITTEN = ("results.jsonl", "speakers.jsonl", "summary.json", "measured.jsonl")
PLANTED = f"""import os
with open(os.path.join({{folder!r}}, {TRACE!r}), "a") as file:
    file.write("{{name}}\\n")
raise ImportError("planted")
"""
LISTED = """
import sys
from nip_audio.cli import main
code = main(sys.argv[1:])
import multiprocessing.forkserver, multiprocessing.popen_forkserver, multiprocessing.spawn
print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""

Done = subprocess.CompletedProcess[str]
Start = Callable[..., Done]


def start(command: list[str], *arguments: object, folder: Path, **variables: str) -> Done:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    env.pop("PYTHONSAFEPATH", None)
    given = [sys.executable, *command, *map(str, arguments)]
    return subprocess.run(
        given, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every module that a run imports, and every module that Python itself could import."""
    folder = tmp_path_factory.mktemp("plain")
    recording = ROOT / "examples/enrolment/alba/alba-1.flac"
    done = start(["-c", LISTED], "detect", recording, folder=folder)
    assert done.returncode == 0, done.stderr
    names = {*done.stderr.splitlines()[-1].split(), *sys.stdlib_module_names, "ray", "librosa"}
    assert {"numpy", "torch", "nip_audio", "multiprocessing", "soundfile", "scipy"} <= names
    return sorted(names - {"__main__"})


@pytest.fixture
def planted(imported: list[str], tmp_path: Path) -> Iterator[Path]:
    """A folder of recordings in which a module of every name lies, and that Python can read."""
    folder = tmp_path / "data"
    (folder / "alba").mkdir(parents=True)
    for number in (1, 2):
        data = (ROOT / f"examples/enrolment/alba/alba-{number}.flac").read_bytes()
        (folder / f"alba/alba-{number}.flac").write_bytes(data)
    for name in imported:
        text = PLANTED.format(folder=str(folder), name=name)
        (folder / f"{name}.py").write_text(text)
    yield folder
    assert not (folder / TRACE).exists(), (folder / TRACE).read_text().split()


def install(folder: Path, script: str) -> list[str]:
    """The command as it is installed: a script in a folder of its own."""
    path = folder / "bin" / "nip-audio"
    path.parent.mkdir()
    path.write_text(script)
    return [str(path)]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return install(tmp_path, SCRIPT)


@pytest.mark.slow
def test_screen_imports_nothing_that_lies_beside_the_data(command, planted, tmp_path):
    out = tmp_path / "report"
    done = start(command, "screen", ".", "--out", out, "--workers", 2, folder=planted)
    assert done.returncode == 0, done.stderr
    assert "2 files: 2 clean" in done.stdout


@pytest.mark.slow
def test_ray_imports_nothing_that_lies_beside_the_data_and_writes_the_same(
    planted, voices_to_screen, calibration, tmp_path
):
    """One start of Ray for both, because it takes long."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[scale]'")
    shutil.rmtree(planted / "alba")
    shutil.copytree(voices_to_screen, planted, dirs_exist_ok=True)
    (planted / "s1/broken.wav").write_text("no audio")
    calibration.save(tmp_path / "quick.calibration")
    given = ["--calibration", tmp_path / "quick.calibration", "--fpr", 0.05, "--seed", 0]
    given += ["--no-report", "--out"]
    on_ray = (".", "--engine", "ray", "--workers", 2, *given, tmp_path / "ray")
    done = start(install(tmp_path, RAY_SCRIPT), "screen", *on_ray, folder=planted)
    assert done.returncode == EXIT_FAILED, done.stderr
    assert "11 files: 10 clean" in done.stdout
    here = map(str, (planted, "--workers", 1, *given, tmp_path / "local"))
    assert main(["screen", *here]) == EXIT_FAILED
    for name in WRITTEN:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("purify", "alba/alba-1.flac", "--out", "{out}"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_import_nothing_that_lies_beside_the_data(command, planted, tmp_path, arguments):
    given = [argument.format(out=tmp_path / "out") for argument in arguments]
    done = start(command, *given, folder=planted)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
def test_the_module_drops_the_working_directory_at_once(planted, tmp_path):
    # what Python imports to find the module, before a line of ours runs, is beyond us; so is a
    # package of our own name
    early = {"importlib", "contextlib", "collections", "functools", "keyword", "operator"}
    early |= {"reprlib", "types", "warnings", "nip_audio", "io", "abc", "encodings", "codecs"}
    for name in early:
        (planted / f"{name}.py").unlink(missing_ok=True)
    out = tmp_path / "report"
    arguments = ("screen", ".", "--out", out, "--workers", 2)
    done = start(["-m", "nip_audio"], *arguments, folder=planted)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_library_starts_workers_off_the_working_directory(planted, tmp_path):
    code = (
        "import sys; sys.path.remove('')\n"
        "import nip_audio\n"
        f"found = nip_audio.screen('.', {str(tmp_path / 'report')!r}, workers=2)\n"
        "print(found.summary['verdicts'])"
    )
    done = start(["-c", code], folder=planted)
    assert done.returncode == 0, done.stderr
    assert "{'clean': 2}" in done.stdout


@pytest.mark.slow
def test_an_empty_entry_of_the_path_is_not_the_working_directory(command, planted, tmp_path):
    # Python itself has obeyed the entry until the command begins
    for name in sys.stdlib_module_names:
        if name not in ("multiprocessing", "concurrent", "wave", "csv", "sqlite3"):
            (planted / f"{name}.py").unlink(missing_ok=True)
    for name in ("nip_audio", "sitecustomize", "usercustomize", "_virtualenv", "_distutils_hack"):
        (planted / f"{name}.py").unlink(missing_ok=True)
    out = tmp_path / "report"
    arguments = ("screen", ".", "--out", out, "--workers", 2)
    done = start(command, *arguments, folder=planted, PYTHONPATH=f"{ROOT}{os.pathsep}")
    assert done.returncode == 0, done.stderr


def test_workers_need_a_python_that_heeds_the_variable(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import nip_audio\n"
        f"nip_audio.screen({str(ROOT / 'examples/enrolment')!r}, 'report', workers=2)"
    )
    done = start(["-E", "-c", code], folder=tmp_path)
    assert done.returncode != 0
    assert "Python was started with -E and without -P" in done.stderr
