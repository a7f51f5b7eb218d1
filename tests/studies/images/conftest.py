"""A hardly trained network of digits, for every study of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from nip_audio.training.image_publishing import run_recipe
from studies.images.systems import image_system

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="package")
def model_folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("models") / "lenet1-digits"
    options = ["--data=digits", "--epochs=3", "--batch_size=64", f"--output_folder={target}"]
    return run_recipe([str(RECIPES / "MNIST" / "lenet1.yaml"), *options])


@pytest.fixture
def system(model_folder, tmp_path):
    return image_system(model_folder, "digits", data_folder=None, folder=tmp_path / "a", seed=1)
