"""The examination of an installation finds what is broken, and says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nip_audio import installation
from nip_audio.installation import examine_installation, import_remedy

ROOT = Path(__file__).parents[1]


def _stub(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


@pytest.fixture
def few_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Examine three light packages alone, and let stubs in this folder stand before them."""
    few = {"pyyaml": "yaml", "typer": "typer", "rich": "rich"}
    monkeypatch.setattr(installation, "_REQUIRED", few)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def _problems() -> dict[str, str | None]:
    return {package.name: package.problem for package in examine_installation().packages}


def test_whole_packages_have_no_problem(few_packages: Path) -> None:
    assert _problems() == {"pyyaml": None, "typer": None, "rich": None}


def test_package_that_fails_to_import_is_named_with_its_reason(few_packages: Path) -> None:
    _stub(few_packages, "yaml", "raise OSError('undefined symbol: f')")
    found = examine_installation()
    assert found.packages[0].problem == "OSError: undefined symbol: f"
    assert found.problems == (
        "pyyaml: OSError: undefined symbol: f; pip install --force-reinstall pyyaml",
    )


def test_package_that_kills_its_process_hides_no_other(few_packages: Path) -> None:
    _stub(few_packages, "typer", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    _stub(few_packages, "rich", "raise ImportError('no')")
    problems = _problems()
    assert problems["pyyaml"] is None
    assert problems["typer"] == "importing it ended the process (signal 9)"
    assert problems["rich"] == "ImportError: no"


def test_package_that_is_not_installed_is_said_to_be_missing(
    few_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_REQUIRED", {"no-such-package": "no_such_package"})
    (package,) = examine_installation().packages
    assert (package.version, package.problem) == (None, "not installed")
    assert package.remedy == "pip install no-such-package"


def test_model_whose_weights_were_changed_is_a_problem(
    few_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = few_packages / "models"
    shutil.copytree(ROOT / "pretrained/lenet5-mnist", folder / "lenet5-copy")
    monkeypatch.setenv("NIP_AUDIO_PRETRAINED", str(folder))
    weights = folder / "lenet5-copy/classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    found = examine_installation()
    (broken,) = [model for model in found.models if model.problem]
    assert broken.name == "lenet5-copy"
    assert "SHA-256" in str(broken.problem)
    assert found.problems == (f"model lenet5-copy: {broken.problem}",)


@pytest.mark.parametrize("module", ["torch", "torchaudio._extension"])
def test_remedy_for_the_pair_names_both(module: str) -> None:
    assert "torch and torchaudio as a pair" in import_remedy(module)


def _doctor(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nip_audio", "doctor", *arguments]
    return subprocess.run(
        command,
        **{"env": {"PYTHONPATH": f"{path}:{ROOT}"}, "cwd": path},
        **{"capture_output": True, "text": True, "check": False},
    )


def test_doctor_survives_a_broken_torchaudio(tmp_path: Path) -> None:
    _stub(tmp_path, "torchaudio", "raise OSError('undefined symbol: torch_f')")
    run = _doctor("--json", path=tmp_path)
    assert run.returncode == 70, run.stderr
    found = json.loads(run.stdout)
    problems = {p["name"]: p["problem"] for p in found["packages"] if p["problem"]}
    assert problems.keys() == {"torchaudio", "speechbrain"}  # SpeechBrain needs it
    assert all("torch_f" in text for text in problems.values())


def test_demo_fails_on_a_broken_installation(tmp_path: Path) -> None:
    _stub(tmp_path, "torch", "raise ImportError('undefined symbol: torch_f')")
    run = subprocess.run(
        [sys.executable, ROOT / "examples/check_demo.py", tmp_path / "report"],
        **{"env": {"PYTHONPATH": str(tmp_path)}, "cwd": tmp_path},
        **{"capture_output": True, "text": True, "check": False},
    )
    assert run.returncode == 1
    assert "exit code 70" in run.stderr
    assert "torch_f" in run.stderr
    assert "Traceback" not in run.stderr
