"""The command ``nip-audio fit-plda``, which fits a back end for verification."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.cli._console import advance, print_json, print_skipped, progress_bar, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    DEFAULT_AUDIO_MODEL,
    AudioModelOption,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    SpeakerFromOption,
)

__all__ = ["command"]


def command(
    source: Annotated[
        Path, typer.Argument(help="Folder with one sub-folder per speaker, or a manifest.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="PLDA file to write.")],
    model: AudioModelOption = DEFAULT_AUDIO_MODEL,
    data_root: DataRootOption = None,
    speaker_from: SpeakerFromOption = None,
    follow_links: FollowLinksOption = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder or manifest of other speakers, to set the threshold."),
    ] = None,
    crop_s: Annotated[
        float,
        typer.Option(min=0, help="Cut recordings into crops of this many seconds; 0: no crops."),
    ] = 0.0,
    lda_dim: Annotated[
        int | None, typer.Option(help="Reduce embeddings to this many dimensions first, by LDA.")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Number of directions in which speakers differ; default: all.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    iterations: Annotated[
        int,
        typer.Option(help="Iterations of expectation maximisation.", rich_help_panel=ADVANCED),
    ] = 10,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a PLDA back end, which verify can use instead of the cosine.

    PLDA is probabilistic linear discriminant analysis; it compares embeddings
    by a log-likelihood ratio. It needs more recordings than the embedding has
    dimensions, or --lda-dim. If speakers have one long recording each, pass
    --crop-s 2.5 to get several crops of it. The threshold is for voices
    enrolled from one recording; voices enrolled from several score higher
    against strangers too, so pass a higher --threshold to verify.

    Example: nip-audio fit-plda voices/ --out my.plda --calibrate others/
    """
    from nip_audio.audio.adapter import WaveformAdapter
    from nip_audio.cli._inputs import find_files
    from nip_audio.core.state import require_new
    from nip_audio.models.adopted import attach_companion
    from nip_audio.models.plda_recordings import fit_plda_to_recordings
    from nip_audio.models.pretrained import load_pretrained

    require_new(out, force=force)
    pretrained = load_pretrained(model)
    adapter = WaveformAdapter.at(pretrained.card.sample_rate_hz, max_duration)
    list_files = partial(
        find_files,
        pretrained,
        data_root=data_root,
        follow_links=follow_links,
        speaker_from=speaker_from,
    )
    recordings = list_files(source)
    trials = list_files(calibrate) if calibrate else []
    with progress_bar("fitting", len(recordings) + len(trials)) as bar:
        plda = fit_plda_to_recordings(
            pretrained,
            recordings,
            adapter,
            lda_dim=lda_dim,
            rank=rank,
            iterations=iterations,
            crop_s=crop_s or None,
            calibration=trials,
            progress=lambda _: advance(bar),
        )
    plda.save(out, force=force)
    attach_companion(pretrained.card, "plda", out)
    print_skipped(plda.failures)
    if as_json:
        print_json({"out": str(out), **plda.to_json()})
    else:
        bound = "none" if plda.threshold is None else f"{plda.threshold:.3f}"
        stdout.say(
            f"{plda.n_embeddings} embeddings of {plda.n_speakers} speakers, threshold {bound}: "
            f"{out}"
        )
    if plda.failures:
        raise typer.Exit(EXIT_FAILED)
