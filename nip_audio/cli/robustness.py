"""The command ``nip-audio robustness``, which ranks models by their response to noise."""

from __future__ import annotations

from collections.abc import Sequence
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
    print_skipped,
    progress_bar,
    stderr,
    stdout,
)
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    LAYER_NAMES,
    NOISE_SCALE,
    OUTPUT,
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
    """Input that the noise is added to."""

    input = "input"
    raw = "raw"


def command(
    models: Annotated[
        list[str], typer.Argument(help="Names of models, or folders with a model card.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of clean recordings or images, or manifest of recordings.")
    ],
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    noise: Annotated[
        Family,
        typer.Option(help="Kind of noise; mask sets patches to zero, and --scale is their share."),
    ] = Family.uniform,
    level: Annotated[
        Level,
        typer.Option(
            help="Where the noise is added. input: the spectrogram; raw: the waveform. For images "
            "both are the pixels."
        ),
    ] = Level.input,
    scale: Annotated[
        float,
        typer.Option(help="Largest magnitude of the noise; for gaussian, its standard deviation."),
    ] = NOISE_SCALE,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Layer; may be repeated. Default: {' and '.join(LAYER_NAMES)}, "
            "or the first alone if a model only embeds."
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Noise draws per file.", rich_help_panel=ADVANCED)
    ] = 10,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="PNG file for box plots of the NCCR.", rich_help_panel=OUTPUT),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank models by NCCR: how much noise changes the output of their neurons.

    NCCR is the neuron coverage change rate. The first model has the lowest. A
    low NCCR is claimed to mean robustness against attacks, which does not
    always hold (docs/results/robustness.md). All models must take the same kind and
    shape of input.

    Example: nip-audio robustness my-model/ my-trained-model/ --data clean/
    --plot boxes.png
    """
    from nip_audio.cli._inputs import (
        find_files,
        make_reader,
        refuse_options,
        require_modality,
    )
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
    refuse_options(loaded[0], "robustness", {"--max-duration": max_duration})
    files = find_files(loaded[0], data, data_root, follow_links=follow_links)
    with progress_bar("measuring", len(files)) as bar:
        result = measure_robustness(
            loaded,
            files,
            make_reader(loaded[0], max_duration),
            noise=disturbed,
            layers=layer or None,
            draws=draws,
            seed=seed,
            progress=lambda _: advance(bar),
        )
    if plot is not None:
        write_atomic(plot, plot_boxes(result.rates), force=force)
    print_skipped(result.failures)
    if len({model.card.data.get("architecture") for model in loaded}) > 1:
        stderr.print(
            "the architectures differ, so the ranking compares different neurons; compare models "
            "of one architecture"
        )
    if as_json:
        print_json(result.to_json(seed=seed))
    else:
        for name in result.rates:
            _print_ranking(name, result.ranking(name, seed=seed), len(result.files))
        stdout.say(f"{result.noise.name}, {draws} draws per file, seed {seed}")
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


def _print_ranking(layer: str, ranking: Sequence[Ranked], files: int) -> None:
    table = Table(box=SIMPLE, title=f"NCCR, {plain(layer)}, {files} files", title_justify="left")
    table.add_column("rank")
    table.add_column("model", overflow="fold", min_width=21)
    for name in ("mean", "95 %", "quartiles", "p to next"):
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
