"""What tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nip_audio.cli import main
from nip_audio.image.adapter import ImageAdapter
from nip_audio.image.datasets import load_images
from nip_audio.training.image_publishing import run_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


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


@pytest.fixture(scope="session")
def picture_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a LeNet-1 that has seen scikit-learn's digits once."""
    target = tmp_path_factory.mktemp("models") / "lenet1-digits"
    options = ["--data=digits", "--epochs=1", "--batch_size=64", f"--output_folder={target}"]
    return str(run_recipe([str(RECIPES / "MNIST" / "lenet1.yaml"), *options]))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty digits, flat; only to be read."""
    folder = tmp_path_factory.mktemp("pictures")
    data = load_images("digits", "test")
    for i in range(20):
        ImageAdapter().save(data.pixels[i], folder / f"{i:02d}.png")
    return folder
