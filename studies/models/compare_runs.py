r"""Compare training runs on the ``calibrate`` role, to see the effect of their options.

    python -m studies.models.compare_runs results/a results/b --crop_s 3 \
        --data_folder /path/to/LibriSpeech --results studies/results/runs.json

For every run the results list the options in which the runs differ, the accuracy of the last
checkpoint, and its difference from the first run's on the same crops under the same noise. Choices
are made on this role, not on ``test``. Of a network that was trained on several parts of a corpus
``--speakers-of test-clean`` measures the speakers of one, among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio import Batch, ReadSettings
from nip_audio.audio.manifest import read_recordings
from nip_audio.evaluation.identification import (
    WHITE_NOISES,
    Crop,
    accuracy,
    correct_crops_by,
    new_sessions,
    read_crops,
)
from nip_audio.models.heads import model_of
from nip_audio.training.publishing import classes_of, load_run, plain_values
from studies._lib.command import command, run, write_results

SEED = 1234
# the corpus, where a run started (a path), and what is set but not used
NOT_CHOICES = {"rir_count", "adversarial_steps", "adversarial_eps", "adversarial_share"}
NOT_CHOICES |= {"init_from", "utterances", "min_utterances"}


@dataclass(frozen=True)
class Measured:
    """A run's row of results, and which crops it classifies correctly under each condition."""

    row: dict[str, Any]
    crops: list[Crop]
    right: dict[str, NDArray[np.float64]]

    def against(self, first: Measured) -> dict[str, Any]:
        """Return the row with paired differences from another run."""
        differences = {
            condition: accuracy(right - first.right[condition], self.crops, seed=SEED).to_json()
            for condition, right in self.right.items()
        }
        return self.row | {"against_first": differences}


def measure(run: Path, data_folder: Path, crop_s: float | None, subset: str | None) -> Measured:
    """Measure accuracy on the run's ``calibrate.csv``: on all of it, and on new chapters."""
    trained = load_run(run)
    classes = classes_of(trained, run / "save/train.csv", subset)
    folder = data_folder if subset is None else data_folder / subset
    parts = trained.hparams
    model = model_of(
        parts["compute_features"],
        parts["embedding_model"],
        parts["classifier"],
        scale=parts["scale"],
    ).eval()

    def name(samples: Tensor) -> str:
        scores = model.scores(Batch(samples[None]))[0, classes]
        return trained.speakers[classes[int(scores.argmax())]]

    tested, learned = (
        [
            r
            for r in read_recordings(run / "save" / f"{role}.csv", data_root=data_folder)
            if Path(r.path).is_relative_to(folder)
        ]
        for role in ("calibrate", "train")
    )
    crops = read_crops(tested, ReadSettings(min_duration_s=0.2), crop_s=crop_s)
    fresh = new_sessions(crops, learned)
    chosen = [c for c, new in zip(crops, fresh, strict=True) if new]
    options = plain_values(trained.yaml) | {"epochs_done": trained.epochs}
    row: dict[str, Any] = {"run": run.name, "options": options, "crops": len(crops)}
    every = {}
    for condition, level in WHITE_NOISES.items():
        generator = torch.Generator().manual_seed(SEED)
        right = correct_crops_by(name, crops, level, generator=generator)
        every[condition] = right
        row[condition] = accuracy(right, crops, seed=SEED).to_json()
        if chosen:
            row[f"{condition}_new_chapter"] = accuracy(right[fresh], chosen, seed=SEED).to_json()
            row["new_chapter"] = {
                "crops": len(chosen),
                "speakers": len({c.speaker for c in chosen}),
            }
    return Measured(row, crops, every)


def main() -> None:
    """Compare the runs and write the results."""
    parser = command(__doc__, needed=("data_folder", "results"))
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--crop_s", type=float)
    parser.add_argument("--speakers-of", metavar="SUBSET")
    options = parser.parse_args()
    manifests = {(run / "save" / "calibrate.csv").read_text() for run in options.runs}
    if len(manifests) > 1:
        raise SystemExit("the runs have different calibrate.csv; compare runs of one split")
    data, crop_s, subset = options.data_folder, options.crop_s, options.speakers_of
    measured = [measure(run, data, crop_s, subset) for run in options.runs]
    rows = [found.against(measured[0]) for found in measured]
    names = sorted({name for row in rows for name in row["options"]} - NOT_CHOICES)
    differ = [n for n in names if len({str(row["options"].get(n)) for row in rows}) > 1]
    for row in rows:
        row["options"] = {name: row["options"].get(name) for name in differ}
    results = {"seed": SEED, "crop_s": crop_s, "rows": rows}
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
