"""Options that several commands share. The help of a command imports nothing else."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.models.cards import DEFAULT_MODELS

DEFAULT_AUDIO_MODEL, DEFAULT_IMAGE_MODEL = DEFAULT_MODELS["audio"], DEFAULT_MODELS["image"]

# Values of the library that the help prints without importing it; tests/test_startup.py compares
# them.
NOISE_SCALE = 8 / 255
LAYER_NAMES = ("last tap", "logits")


class Modality(StrEnum):
    """Kind of input that a model takes."""

    audio = "audio"
    image = "image"


# panels of the help; options without a panel are the ones that most runs need
INPUT = "Input"
OUTPUT = "Output"
PIPELINES = "Pipelines"
ADVANCED = "Advanced"
GATE = "Enrolment gate"

_MODEL_HELP = "Name of a model, or folder with a model card"

AudioModelOption = Annotated[str, typer.Option("--model", "-m", help=f"{_MODEL_HELP}.")]
"""For commands that take recordings only."""

RequiredModelOption = AudioModelOption
"""For commands that take recordings or images, but have no default model."""

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"{_MODEL_HELP}; default: {DEFAULT_AUDIO_MODEL}, or {DEFAULT_IMAGE_MODEL} with "
        "--modality image.",
    ),
]
"""For commands that take recordings or images, as the model does."""

ModalityOption = Annotated[
    Modality | None,
    typer.Option(
        "--modality",
        help="Kind of files; refuse a model of another kind. Default: what the model takes.",
        rich_help_panel=INPUT,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON instead of text (docs/reference/json.md describes it).",
        rich_help_panel=OUTPUT,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Overwrite existing output files.", rich_help_panel=OUTPUT),
]
SecretSeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="Seed of all random numbers, to repeat a run. Default: a secret one, which is written "
        "into the results; whoever knows it can compute the noise.",
        rich_help_panel=ADVANCED,
        show_default=False,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option("--seed", min=0, help="Seed of all random numbers.", rich_help_panel=ADVANCED),
]
FprOption = Annotated[
    float | None,
    typer.Option(
        "--fpr",
        help="False-positive rate on clean files; a higher one detects more attacks. Default: "
        "0.01, or the lowest that the calibration allows.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", "-c", help="Calibration file; default: the one of the model."),
]
MaxDurationOption = Annotated[
    float | None,
    typer.Option(
        "--max-duration",
        help="Refuse recordings longer than this many seconds; default: 120.",
        rich_help_panel=INPUT,
    ),
]
ChannelOption = Annotated[
    int | None,
    typer.Option(
        "--channel",
        min=1,
        help="Number of the channel to read, from 1; default: the mean of all.",
        rich_help_panel=INPUT,
    ),
]
DataRootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        help="Folder or URL that replaces $data_root in a manifest, and below which its files "
        "may lie.",
        rich_help_panel=INPUT,
    ),
]
SpeakerFromOption = Annotated[
    str | None,
    typer.Option(
        "--speaker-from",
        metavar="PATTERN",
        help="Where the speaker's name is in the paths of a folder, e.g. '{speaker}/*/*' or "
        "'*/{speaker}_*', or a regular expression with (?P<speaker>…). Default: the first "
        "sub-folder.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Also read files that symbolic links outside of the source lead to.",
        rich_help_panel=INPUT,
    ),
]
ThresholdFileOption = Annotated[
    Path | None,
    typer.Option(
        "--threshold-file",
        help="File written by nip-audio threshold, whose threshold is used instead of the "
        "calibration's.",
        rich_help_panel=INPUT,
    ),
]
GateOption = Annotated[
    str | None,
    typer.Option(
        "--gate",
        metavar="FILE|defaults",
        help="Also check what an enrolment needs (speech, noise, level, cohesion, …) against the "
        "limits of a TOML file, or the defaults (nip-audio gate --show). Needs the extra gate.",
        rich_help_panel=GATE,
    ),
]
