"""The built wheel works in an environment that holds it and what it declares, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def _declared() -> set[str]:
    """Names of all distributions that nip-audio needs without its extras, and those need."""
    names: set[str] = set()
    waiting = [("nip-audio", "")]
    while waiting:
        name, extras = waiting.pop()
        for text in distribution(name).requires or ():
            need = Requirement(text)
            wanted = need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *extras.split(","))
            )
            if wanted and need.name not in names:
                names.add(need.name)
                waiting.append((need.name, ",".join(need.extras)))
    return names


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and links to what it declares; only to be read."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*build, *quiet, "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("nip_audio-*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    packages = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            **{"check": True, "capture_output": True, "text": True},
        ).stdout.strip()
    )
    for name in sorted(_declared()):
        found = distribution(name)
        tops = {file.parts[0] for file in found.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            link, target = packages / top, Path(str(found.locate_file(top)))
            if target.exists() and not link.exists():
                link.symlink_to(target)
    install = [python, "-m", "pip", "install", "--no-deps", *quiet, wheel]
    subprocess.run(install, check=True)
    return home


def _run(environment: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    return subprocess.run(
        [environment / "bin" / "nip-audio", *arguments],
        **{"cwd": cwd, "env": kept | {"HOME": str(cwd)}, "check": False},
        **{"capture_output": True, "text": True},
    )


def test_screens_the_demo_from_another_folder(environment: Path, tmp_path: Path) -> None:
    given = ("screen", str(ROOT / "examples/enrolment"), "--out", "r", "--seed", "0")
    run = _run(environment, *given, cwd=tmp_path)
    assert run.returncode == 3, run.stderr
    verdicts = re.findall(r'"verdict": "(\w+)"', (tmp_path / "r/results.jsonl").read_text())
    assert sorted(v for v in verdicts if v != "clean") == [
        *("adversarial", "adversarial", "duplicate", "duplicate")
    ]


def test_doctor_finds_nothing_wrong_but_the_extras(environment: Path, tmp_path: Path) -> None:
    run = _run(environment, "doctor", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["problems"] == []
    assert {model["name"] for model in found["models"]} >= {"xvector-libri251", "lenet5-mnist"}
    missing = {extra["name"]: extra["missing"] for extra in found["extras"]}
    assert "foolbox" in missing["attacks"]
    assert "ray" in missing["scale"]


def test_holds_every_file_of_the_shipped_models(environment: Path) -> None:
    """README.md included, where licence and limits are stated: weights are not shipped without."""
    (installed,) = environment.glob("lib/python*/site-packages/nip_audio/_pretrained")
    shipped = ROOT / "pretrained"
    held, expected = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (installed, shipped)
    )
    assert held == expected
    assert len(held) > 20
