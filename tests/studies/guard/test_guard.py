"""The recipe behind a guard, on the small world, and its page."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.processes import start_python

ROOT = Path(__file__).parents[3]


@pytest.fixture
def manifest(tmp_path, voice) -> Path:
    """Four speakers, three takes each of one length, and one take of noise."""
    path = tmp_path / "train.csv"
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "wav", "spk_id"])
        for speaker in range(4):
            for take in range(10, 13):
                wav = tmp_path / f"s{speaker}-{take}.wav"
                odd = (speaker, take) == (2, 11)
                soundfile.write(wav, noise if odd else voice(speaker, take), 16000, "PCM_16")
                writer.writerow([wav.stem, f"$data_root/{wav.name}", f"s{speaker}"])
    return path


def test_it_trains_on_what_the_guard_lets_through(manifest, calibration, tmp_path):
    calibration.save(tmp_path / "my.calibration")
    out = tmp_path / "run"
    options = {
        "manifest": manifest,
        "data_root": tmp_path,
        "n_speakers": 4,
        "guarded": True,
        "calibration": tmp_path / "my.calibration",
        "fpr": 0.05,
        "batch_size": 4,
        "number_of_epochs": 1,
        "output_folder": out,
    }
    given, log = [f"--{k}={v}" for k, v in options.items()], tmp_path / "log"
    program = "studies.guard.train"
    process = start_python(program, "studies/guard/train.yaml", *given, log=log, folder=ROOT)
    assert process.wait() == 0, log.read_text()[-2000:]
    lines = (out / "guard/screening/results.jsonl").read_text().splitlines()
    verdicts = {record["id"]: record["verdict"] for record in map(json.loads, lines)}
    assert len(verdicts) == 12
    assert verdicts["s2-11"] != "clean"
    weights = load_file(out / "model.safetensors")
    assert weights["head.weight"].shape == (4, 32)
    assert all(tensor.isfinite().all() for tensor in weights.values())
