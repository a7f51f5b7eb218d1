r"""Compare training runs on the ``calibrate`` role: which options did what?

    python compare_runs.py results/a results/b --crop_s 3 \
        --data_folder /path/to/LibriSpeech --results ../docs/results/runs.json

For every run: the options in which the runs differ, and the accuracy of its last checkpoint.
Choices are made here, not on ``test``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer

from nip_audio import Batch, InstrumentedModel, ReadSettings
from nip_audio.audio.manifest import read_manifest
from nip_audio.core.adapter import Bounds
from nip_audio.evaluation.identification import WHITE_NOISES, accuracy, read_crops
from nip_audio.integrations.publishing import plain_values
from nip_audio.models.heads import head_of

SEED = 1234
NOT_CHOICES = {"rir_count", "adversarial_steps", "adversarial_eps", "adversarial_share"}


def load(run: Path) -> tuple[InstrumentedModel, list[str], dict[str, Any]]:
    """Return the model of the last checkpoint, its speakers, and the plain options of the run."""
    text = (run / "hyperparams.yaml").read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text)
    checkpoint = Checkpointer(run / "save", dict(hparams["modules"])).recover_if_possible()
    if checkpoint is None:
        raise SystemExit(f"{run} has no checkpoint")
    head, output_kind = head_of(hparams["classifier"])
    model = InstrumentedModel(
        hparams["embedding_model"],
        front_end=hparams["compute_features"],
        head=head,
        output_kind=output_kind,
        bounds=Bounds(-1.0, 1.0),
        scale=hparams["scale"],
    ).eval()
    labels = (run / "save" / "labels.txt").read_text(encoding="utf-8").splitlines()
    return model, labels, plain_values(text) | {"epochs_done": checkpoint.meta["epoch"]}


def measure(run: Path, data_folder: Path, crop_s: float | None) -> dict[str, Any]:
    """Accuracy on the run's ``calibrate.csv``, all of it and chapters it was not trained on."""
    model, labels, options = load(run)
    read = lambda role: read_manifest(run / "save" / f"{role}.csv", data_root=data_folder)  # noqa: E731
    known = {recording.path.parent for recording in read("train")}
    crops = read_crops(read("calibrate"), ReadSettings(min_duration_s=0.2), crop_s=crop_s)
    fresh = np.array([c.recording.path.parent not in known for c in crops])
    row: dict[str, Any] = {"run": run.name, "options": options, "crops": len(crops)}
    for name, level in WHITE_NOISES.items():
        generator = torch.Generator().manual_seed(SEED)
        right = []
        for crop in crops:
            noise = torch.randn(crop.samples.shape, generator=generator)
            noisy = (crop.samples + level(crop.samples) * noise).clamp(-1, 1)
            with torch.no_grad():
                scores = model.scores(Batch(noisy[None]))[0, : len(labels)]
            right.append(float(labels[int(scores.argmax())] == crop.speaker))
        hits = np.array(right)
        row[name] = accuracy(hits, crops, seed=SEED).to_json()
        if fresh.any():
            chosen = [c for c, new in zip(crops, fresh, strict=True) if new]
            row[f"{name}_new_chapter"] = accuracy(hits[fresh], chosen, seed=SEED).to_json()
            row["new_chapter"] = {
                "crops": len(chosen),
                "speakers": len({c.speaker for c in chosen}),
            }
    return row


def main() -> None:
    """Compare."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--crop_s", type=float)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    manifests = {(run / "save" / "calibrate.csv").read_text() for run in options.runs}
    if len(manifests) > 1:
        raise SystemExit("the runs have different calibrate.csv; compare runs of one split")
    rows = [measure(run, options.data_folder, options.crop_s) for run in options.runs]
    names = sorted({name for row in rows for name in row["options"]} - NOT_CHOICES)
    differ = [n for n in names if len({str(row["options"].get(n)) for row in rows}) > 1]
    for row in rows:
        row["options"] = {name: row["options"].get(name) for name in differ}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    results = {"seed": SEED, "crop_s": options.crop_s, "rows": rows}
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
