"""``nip-audio robustness``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from nip_audio.cli._console import (
    advance,
    plain,
    print_json,
    print_left_out,
    progress_bar,
    stderr,
    stdout,
)
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    LAYER_NAMES,
    NOISE_SCALE,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    SeedOption,
)

if TYPE_CHECKING:
    from nip_audio.evaluation.nccr_ranks import Ranked


__all__ = ["command"]


class Family(StrEnum):
    """Kind of noise."""

    uniform = "uniform"
    gaussian = "gaussian"
    mask = "mask"


class Level(StrEnum):
    """What the noise is added to."""

    input = "input"
    raw = "raw"


def command(
    models: Annotated[list[str], typer.Argument(help="Names, or folders with a model card.")],
    data: Annotated[
        Path, typer.Option(help="Folder of clean audio or pictures, or CSV manifest of audio.")
    ],
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    noise: Annotated[Family, typer.Option(help="mask zeroes patches; --scale is their share.")] = (
        Family.uniform
    ),
    level: Annotated[
        Level,
        typer.Option(
            help="input: the model's own, a spectrogram; raw: the waveform. Of pictures both are "
            "the pixels."
        ),
    ] = Level.input,
    scale: Annotated[
        float, typer.Option(help="Largest magnitude, or standard deviation of gaussian noise.")
    ] = NOISE_SCALE,
    layer: Annotated[
        list[str] | None,
        typer.Option(help=f"Can be repeated; default: {' and '.join(LAYER_NAMES)}."),
    ] = None,
    draws: Annotated[int, typer.Option(help="Noise draws a file.")] = 10,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of box plots to write.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank models by NCCR: how much the same noise changes what their neurons put out.

    The first has the least. That it is the most robust to attacks too is a claim, and does not
    always hold: docs/results/robustness.md. Models of pictures are compared on pictures,
    of one shape.

    Example: nip-audio robustness my-model/ my-trained-model/ --data clean/ --plot boxes.png
    """
    from nip_audio.cli._inputs import find_files, make_reader, refuse_of_audio, require_modality
    from nip_audio.core.noise import Noise
    from nip_audio.core.state import require_new, write_atomic
    from nip_audio.evaluation.nccr_plots import plot_boxes
    from nip_audio.evaluation.robustness import (
        measure_robustness,
        require_comparable,
    )
    from nip_audio.models.pretrained import load_pretrained

    if plot is not None:
        require_new(plot, force=force)
    disturbed = Noise(noise.value, level.value, scale)
    loaded = [load_pretrained(model) for model in models]
    for pretrained in loaded:
        require_modality(pretrained, modality)
    require_comparable(loaded, [disturbed])
    refuse_of_audio(loaded[0], {"--max-duration": max_duration})
    files = find_files(loaded[0], data, data_root, follow_links=follow_links)
    if loaded[0].card.modality == "image":
        # a folder holds what pictures show, which makes them no less independent of each other
        files = [replace(file, speaker=None) for file in files]
    with progress_bar("measuring", len(files)) as bar:
        result = measure_robustness(
            loaded,
            files,
            make_reader(loaded[0], max_duration),
            noise=disturbed,
            layers=tuple(layer or LAYER_NAMES),
            draws=draws,
            seed=seed,
            progress=lambda _: advance(bar),
        )
    if plot is not None:
        write_atomic(plot, plot_boxes(result.rates), force=force)
    print_left_out(result.failures)
    if len({model.card.data.get("architecture") for model in loaded}) > 1:
        stderr.print("the architectures differ: that rank compares different neurons")
    if as_json:
        print_json(result.to_json(seed=seed))
    else:
        for name in result.rates:
            _print_ranking(name, result.ranking(name, seed=seed), len(result.files))
        stdout.print(f"{result.noise.name}, {draws} draws a file, seed {seed}", markup=False)
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


def _print_ranking(layer: str, ranking: Sequence[Ranked], files: int) -> None:
    table = Table(box=SIMPLE, title=f"NCCR, {plain(layer)}, {files} files", title_justify="left")
    table.add_column("rank")
    table.add_column("model", overflow="fold", min_width=21)
    for name in ("mean", "95 %", "quartiles", "p, next"):
        table.add_column(name, no_wrap=True)
    for ranked in ranking:
        table.add_row(
            str(ranked.rank),
            plain(ranked.model),
            f"{ranked.mean.value:.4f}",
            f"{ranked.mean.low:.4f}–{ranked.mean.high:.4f}",
            ", ".join(f"{quartile:.3f}" for quartile in ranked.quartiles),
            "–" if ranked.p_next is None else f"{ranked.p_next:.2g}",
        )
    stdout.print(table)
