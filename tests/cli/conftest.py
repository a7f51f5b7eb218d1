"""What tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nip_audio.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; return exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def enrolment(run: Callable[..., tuple[int, str, str]], clean_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "voices.enrolment"
    assert run("enroll", clean_folder, "--out", path)[0] == 0
    return path
