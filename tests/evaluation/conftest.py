"""A corpus of synthetic voices with roles, and a system that knows them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile
import yaml

from nip_audio.evaluation.config import EvaluationConfig, read_config
from nip_audio.evaluation.systems import EvaluatedSystem, build_system

ROLES = {0: "train", 1: "train", 2: "calibrate", 3: "test", 4: "test"}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, voice: Callable) -> Path:
    """Six speakers, five takes of 1 s each, and split.csv."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for speaker in range(6):
        for take, role in ROLES.items():
            path = Path("voices") / f"s{speaker}" / f"take{take}.flac"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / path, voice(speaker, take), 16000)
            rows.append(
                {
                    "path": path.as_posix(),
                    "speaker": f"s{speaker}",
                    "role": role,
                    "start_s": 0.0,
                    "end_s": 1.0,
                }
            )
    with (root / "split.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def write_config_to(corpus: Path) -> Callable[..., Path]:
    """Write a configuration into a folder; what else is given replaces the usual."""

    def write(folder: Path, **changes: object) -> Path:
        data = {
            "title": "synthetic",
            "data": {"root": str(corpus), "split": str(corpus / "split.csv")},
            "systems": {
                "x": {"model": "xvector-libri251", "subset": "voices", "enrol": True},
            },
            "attacks": [
                {"attack": "fgsm", "eps": [0.002], "items": 4, "batch": 2},
            ],
            **changes,
        }
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


@pytest.fixture
def write_config(tmp_path: Path, write_config_to: Callable[..., Path]) -> Callable[..., Path]:
    return partial(write_config_to, tmp_path)


@pytest.fixture
def config(write_config: Callable[..., Path]) -> EvaluationConfig:
    return read_config(write_config())


@pytest.fixture
def system(config: EvaluationConfig) -> EvaluatedSystem:
    return build_system(config.systems[0], config)
