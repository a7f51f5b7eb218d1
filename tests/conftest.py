"""Shared fixtures: a small x-vector, sound files, a small world to screen, the real data."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from speechbrain.utils.importutils import LazyModule

from nip_audio import PretrainedModel, WaveformAdapter, load_pretrained
from nip_audio.audio.features import LogMel
from nip_audio.audio.manifest import walk_audio
from nip_audio.core import seeds
from nip_audio.core.adapter import Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.evaluation.config import EvaluationConfig, read_config
from nip_audio.evaluation.systems import EvaluatedSystem, build_system
from nip_audio.models.plda import Plda
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.xvector import Xvector
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.screening.pipeline import Screener

# Hypothesis asks every loaded module for its file, on which SpeechBrain's lazy ones would import
# optional packages; an answer on the class keeps them asleep.
LazyModule.__file__ = None

DATA_VARIABLE = "NIP_AUDIO_DATA"


def find_data_root(value: str | None) -> Path:
    if not value:
        pytest.skip(f"{DATA_VARIABLE} is not set; point it at a LibriSpeech root to run this test")
    root = Path(value)
    if not root.is_dir():
        # asked for and missing is a broken set-up; a skip would hide it
        pytest.fail(f"{DATA_VARIABLE} is {value}, which is not a folder")
    return root


@pytest.fixture(scope="session")
def data_root() -> Path:
    return find_data_root(os.environ.get(DATA_VARIABLE))


@pytest.fixture(scope="session")
def vctk_root(data_root: Path) -> Path:
    """Holds VCTK-mini (VCTK 0.92's layout, a sentence each) and VCTK-16k (pXXX/pXXX_NNN.flac)."""
    for name in ("VCTK-mini", "VCTK-16k"):
        if not (data_root / name).is_dir():
            pytest.skip(f"{data_root} has no folder {name} with recordings of VCTK")
    return data_root


@pytest.fixture(autouse=True)
def same_global_numbers() -> None:
    """Whichever tests ran before in this process: their order is that of whoever has time."""
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def known_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secret seeds are 0 in this process, so that what a test finds does not depend on luck."""
    monkeypatch.setattr(seeds, "secrets", SimpleNamespace(randbits=lambda bits: 0))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny_xvector() -> Xvector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Xvector(channels=[8, 8, 8, 8, 12], embedding_dim=6)
        for module in network.modules():
            # by default a deep random network maps everything to nearly one point, and fresh batch
            # statistics are 0 and 1: either would make a wrong layer look right
            if isinstance(module, torch.nn.Conv1d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                module.weight.data *= 3.0
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture
def tiny_model(tiny_xvector: Xvector) -> InstrumentedModel:
    references = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    return InstrumentedModel(
        tiny_xvector,
        front_end=LogMel(),
        head=CosineHead(references),
        output_kind="cosine",
        labels=("ann", "bob", "cyd"),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
        scale=10.0,
    ).eval()


@pytest.fixture
def embedding_model(tiny_model: InstrumentedModel) -> InstrumentedModel:
    return InstrumentedModel(
        tiny_model.network,
        front_end=tiny_model.front_end,
        bounds=tiny_model.bounds,
        input_bounds=tiny_model.input_bounds,
    ).eval()


@pytest.fixture(scope="session")
def six_dim_voices() -> tuple[torch.Tensor, list[str]]:
    """Embeddings (60, 6) float64 of 12 speakers, five each, far from the origin."""
    rng = torch.Generator().manual_seed(5)
    means = 2.0 + torch.randn(12, 1, 6, generator=rng, dtype=torch.float64)
    noise = 0.4 * torch.randn(12, 5, 6, generator=rng, dtype=torch.float64)
    return (means + noise).flatten(0, 1), [f"s{i // 5}" for i in range(60)]


@pytest.fixture(scope="session")
def plda(six_dim_voices: tuple[torch.Tensor, list[str]]) -> Plda:
    """A PLDA for the embeddings of ``tiny_model``."""
    embeddings, speakers = six_dim_voices
    return fit_plda(embeddings, speakers, model_id="tiny", rank=4)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Make a sine with a little noise, (N,) float32."""

    def make(
        duration_s: float = 1.0,
        *,
        rate_hz: int = 16000,
        frequency_hz: float = 440.0,
        amplitude: float = 0.3,
        seed: int = 0,
    ) -> np.ndarray:
        time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
        noise = np.random.default_rng(seed).standard_normal(time_s.size)
        wave = np.sin(2 * np.pi * frequency_hz * time_s) + 0.01 * noise
        return (amplitude * wave).astype(np.float32)

    return make


@pytest.fixture
def write_sound(tmp_path: Path, tone: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Write a sound file below ``tmp_path`` and return its path."""

    def write(
        name: str = "a.wav",
        samples: np.ndarray | None = None,
        *,
        rate_hz: int = 16000,
        subtype: str | None = None,
        container: str | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = tone(rate_hz=rate_hz) if samples is None else samples
        with path.open("wb") as file:
            container = container or path.suffix[1:].upper()
            soundfile.write(file, samples, rate_hz, subtype, format=container)
        return path

    return write


@pytest.fixture
def hook_count() -> Callable[[torch.nn.Module], int]:
    return lambda module: sum(len(m._forward_hooks) for m in module.modules())


# --- a small world to screen: synthetic voices, the shipped model, a quick calibration of them ---

RATE_HZ = 16000

QUICK = NccrConfig(
    layers=("frames.2", "embedding"),
    noises=(Noise("gaussian", "input", 0.03), Noise("gaussian", "raw", 0.002)),
    draws=2,
)


def synthetic_voice(speaker: int, take: int, duration_s: float = 1.0) -> np.ndarray:
    """A buzz with the speaker's own pitch and resonances, in syllables: (N,) float32."""
    rng = np.random.default_rng((speaker, take))
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    pitch_hz = (90 + 25 * speaker) * (1 + 0.03 * np.sin(2 * np.pi * (2 + take) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    resonance = 300.0 + 170.0 * ((speaker * 7) % 11)
    wave = sum(
        np.sin(k * phase) / (1 + ((k * pitch_hz.mean() - resonance) / 400) ** 2)
        for k in range(1, 20)
    )
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * (3 + take) * time_s)
    wave = wave / np.abs(wave).max() * syllables * 0.3 + 0.002 * rng.standard_normal(time_s.size)
    return wave.astype(np.float32)


@pytest.fixture(scope="session")
def voice() -> Callable[..., np.ndarray]:
    return synthetic_voice


@pytest.fixture(scope="session")
def pretrained() -> PretrainedModel:
    return load_pretrained("xvector-libri251")


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for speaker in range(8):
        for take in range(4):
            path = root / f"s{speaker}" / f"take{take}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, synthetic_voice(speaker, take), RATE_HZ, "PCM_16")
    return root


@pytest.fixture(scope="session")
def calibration(pretrained: PretrainedModel, clean_folder: Path) -> Calibration:
    return calibrate(pretrained, walk_audio(clean_folder), WaveformAdapter(), QUICK)


@pytest.fixture
def screener(pretrained: PretrainedModel, calibration: Calibration) -> Screener:
    return Screener(pretrained, Judge(calibration, 0.05), WaveformAdapter())


@pytest.fixture(scope="session")
def voices_to_screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``folder`` is copied from; only to be read."""
    root = tmp_path_factory.mktemp("voices")
    for speaker in range(3):
        for take in range(10, 13):
            path = root / f"s{speaker}" / f"take{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, synthetic_voice(speaker, take), RATE_HZ, "PCM_16")
    soundfile.write(root / "lonely.flac", synthetic_voice(5, 20), RATE_HZ)
    return root


@pytest.fixture
def folder(voices_to_screen: Path, tmp_path: Path) -> Path:
    """Three speakers, three takes each (not the calibration's), and one flat file."""
    return Path(shutil.copytree(voices_to_screen, tmp_path / "enrolment"))


# --- a corpus of synthetic voices with roles, and a system that knows them, to evaluate ---

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


@pytest.fixture(scope="session")
def uncalibrated(tmp_path_factory) -> Path:
    """Folder of the shipped ResNet-34 as it would be without a calibration."""
    folder = tmp_path_factory.mktemp("uncalibrated") / "resnet34-libri30"
    shutil.copytree(Path(__file__).parents[1] / "pretrained/resnet34-libri30", folder)
    (folder / "calibration.safetensors").unlink()
    card = json.loads((folder / "model_card.json").read_text(encoding="utf-8"))
    (folder / "model_card.json").write_text(json.dumps(card | {"calibration": None}))
    return folder
