"""Options that the commands share; they are all that a command's help has to import."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_MODEL = "xvector-libri251"
DEFAULT_PICTURE_MODEL = "lenet5-mnist"

# What the help of commands says of the library, without importing it; tests/test_start.py
# compares the two.
ATTACK_NAMES = (
    *("fgsm", "bim", "mi-fgsm", "pgd", "pgd-l2", "eot", "uap", "autoattack", "hopskipjump"),
    *("deepfool", "cw", "auna", "boundary", "fakebob", "kenansville", "s-ala", "r-ala", "pgd-e2e"),
)
PURIFIER_NAMES = (
    *("guided", "pool", "noise", "quantization", "down-sampling", "random-crop", "median", "mp3"),
    *("vorbis", "opus", "spatial-smoothing", "bit-depth", "tvm", "tvm-art", "jpeg", "stl"),
    *("super-resolution", "feature-distillation", "anti-adversary"),
)
ATTACK_FAMILIES = ("gradient", "minimum", "sparse", "score", "decision", "universal")
GUIDED_STEPS = 900
NOISE_SCALE = 8 / 255
LAYER_NAMES = ("last tap", "logits")


class Modality(StrEnum):
    """What a model takes."""

    audio = "audio"
    image = "image"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Model name, or a folder with a model card.")
]
EitherModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"Model name, or a folder with a model card; default: {DEFAULT_MODEL}, with "
        f"--modality image {DEFAULT_PICTURE_MODEL}.",
    ),
]
ModalityOption = Annotated[
    Modality | None,
    typer.Option(
        "--modality",
        help="Refuse a model that takes anything else; default: whatever the model takes.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON (docs/json.md) instead of a table.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]
RateOption = Annotated[
    float, typer.Option("--fpr", help="False positives on clean audio; more find more attacks.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", "-c", help="Calibration file; default: the model's own."),
]
MaxDurationOption = Annotated[
    float | None,
    typer.Option(
        "--max-duration", help="Refuse recordings longer than this many seconds; default: 120."
    ),
]
DataRootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        help="Folder or URL: replaces $data_root in a manifest, whose files may lie below it.",
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option("--follow-links", help="Read what links lead to outside of the source as well."),
]
