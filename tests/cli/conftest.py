"""What tests of the commands share."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def enrolled_voices(clean_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("enrolled") / "voices.enrolment"
    assert main(["enroll", str(clean_folder), "--out", str(path)]) == 0
    return path


@pytest.fixture
def enrolment(enrolled_voices: Path, tmp_path: Path) -> Path:
    """An enrolment of the calibration's speakers, of which a test may do what it likes."""
    return Path(shutil.copy(enrolled_voices, tmp_path))


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
