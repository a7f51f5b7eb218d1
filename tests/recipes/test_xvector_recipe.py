"""The recipe end to end on a synthetic corpus: train, be interrupted, resume, publish, load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from nip_audio import Batch, load_pretrained

RECIPE = Path(__file__).parents[2] / "recipes/LibriSpeech/Xvector"

SMALL = [
    "--n_speakers=4",
    "--n_classes=20",
    "--batch_size=8",
    "--batches_per_epoch=2",
    "--augment_group=4",
    "--rir_count=2",
    "--channels=[8, 8, 8, 8, 12]",
    "--embedding_dim=6",
]


@pytest.fixture
def corpus(tmp_path, voice) -> Path:
    for speaker in range(4):
        for take in range(5):
            name = f"{speaker + 10}-1-{take:04d}.flac"
            path = tmp_path / "corpus/train-clean-100" / str(speaker + 10) / "1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(speaker, take, 1.4), 16000)
    return tmp_path / "corpus"


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, RECIPE / script, *map(str, arguments)],
        cwd=RECIPE,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_trains_resumes_publishes_and_loads(corpus, tmp_path):
    out = tmp_path / "run"
    train = ["train.py", "hparams/xvector.yaml", f"--data_folder={corpus}", *SMALL]
    train += [f"--output_folder={out}"]
    run(*train, "--number_of_epochs=1")
    log = run(*train, "--number_of_epochs=2")
    assert "Going into epoch 2" in log
    assert "Going into epoch 1" not in log  # what was done is not done again
    assert (out / "train_log.txt").read_text().count("epoch:") == 2

    target = tmp_path / "pretrained/tiny"
    run("publish.py", out, target)
    loaded = load_pretrained(target)
    assert loaded.card.labels == ("10", "11", "12", "13")
    assert loaded.card.data["training"]["epochs"] == 2
    assert not list(target.glob("*.ckpt"))
    with torch.no_grad():
        scores = loaded.model.scores(Batch(torch.rand(2, 16000) - 0.5))
    assert scores.shape == (2, 4)
    assert bool((scores.abs() <= 1 + 1e-6).all())


def test_says_what_to_pass_when_the_number_of_speakers_is_wrong(corpus, tmp_path):
    done = subprocess.run(
        [sys.executable, RECIPE / "train.py", "hparams/xvector.yaml", f"--data_folder={corpus}"]
        + [f"--output_folder={tmp_path / 'run'}", "--rir_count=1"],
        cwd=RECIPE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--n_speakers=4 --n_classes=20" in done.stdout + done.stderr
