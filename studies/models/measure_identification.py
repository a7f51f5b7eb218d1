r"""Measure the identification accuracy of models, with and without white noise.

    python -m studies.models.measure_identification resnet34-libri30 SEED2 SEED3 --crop_s 3 \
        --manifest RUN_FOLDER/save/test.csv --data_folder /path/to/LibriSpeech \
        --results studies/results/resnet34.json

The first model is the shipped one; the others are published from runs with other seeds. With
``--crop_s`` recordings are cut into consecutive crops, and shorter rests are left out.
"""

from __future__ import annotations

from typing import Any

import torch

from nip_audio import ReadSettings, load_pretrained
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.evaluation.identification import (
    WHITE_NOISES,
    Crop,
    accuracy,
    correct_crops,
    new_sessions,
    read_crops,
)
from nip_audio.models.pretrained import PretrainedModel
from studies._lib.command import command, run, write_results

SEED = 1234


def measure(pretrained: PretrainedModel, groups: dict[str, list[Crop]]) -> dict[str, Any]:
    """Measure accuracy for each group of crops and each condition."""
    results: dict[str, Any] = {
        "model": pretrained.card.name,
        "model_id": pretrained.model_id,
        "training_seed": pretrained.card.data["training"]["seed"],
        "parameters": pretrained.card.data["parameters"],
    }
    for group, crops in groups.items():
        results[group] = {}
        for name, level in WHITE_NOISES.items():
            generator = torch.Generator().manual_seed(SEED)
            right = correct_crops(pretrained, crops, level, generator=generator)
            results[group][name] = accuracy(right, crops, seed=SEED).to_json()
    return results


def by_session(crops: list[Crop], trained: list[Recording]) -> dict[str, list[Crop]]:
    """Group crops: all, and those from folders (LibriSpeech: chapters) not trained on."""
    fresh = [c for c, new in zip(crops, new_sessions(crops, trained), strict=True) if new]
    return {"all": crops} | ({"new_chapter": fresh} if fresh else {})


def main() -> None:
    """Measure all models and write the results."""
    parser = command(__doc__, needed=("data_folder", "manifest", "results"))
    parser.add_argument("models", nargs="+", help="names or directories")
    parser.add_argument("--crop_s", type=float)
    options = parser.parse_args()
    settings = ReadSettings(min_duration_s=0.2)
    recordings = read_recordings(options.manifest, data_root=options.data_folder)
    trained = read_recordings(
        options.manifest.with_name("train.csv"), data_root=options.data_folder
    )
    crops = read_crops(recordings, settings, crop_s=options.crop_s)
    groups = by_session(crops, trained)
    results = {
        "seed": SEED,
        "crop_s": options.crop_s,
        "recordings": len(recordings),
        "groups": {
            name: {
                "crops": len(group),
                "recordings": len({c.recording.id for c in group}),
                "speakers": len({c.speaker for c in group}),
            }
            for name, group in groups.items()
        },
        "models": [measure(load_pretrained(model), groups) for model in options.models],
    }
    write_results(options.results, results)


if __name__ == "__main__":
    run(main)
