"""The command ``nip-audio fit-purifier``, which fits a purifier to a model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nip_audio.cli._console import print_json, print_skipped, progress_bar, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    ATTACK_FAMILIES,
    GUIDED_STEPS,
    INPUT,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
)
from nip_audio.core.near import suggest_names
from nip_audio.errors import InputError

if TYPE_CHECKING:
    from nip_audio.models.pretrained import PretrainedModel
    from nip_audio.purifiers.guided_training import GuidedSettings
    from nip_audio.purifiers.nip_guided import GuidedNip
    from nip_audio.workflows.clean_data import Benign


__all__ = ["Method", "command"]

GUIDED_PANEL = "Guided purifier"
COMPARISON_PANEL = "Other methods"


class Method(StrEnum):
    """Kind of purifier."""

    GUIDED = "guided"
    POOL = "pool"
    NS = "ns"
    STL = "stl"


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean recordings or images, or manifests of recordings."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Purifier file to write.")],
    model: ModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    method: Annotated[
        Method,
        typer.Option(
            help="Use guided. The others are for comparison: pool is NIP (neuron-level inverse "
            "perturbation) as published, stl is sparse coding, and ns is neuron selecting, which "
            "changes no input and is for evaluations only."
        ),
    ] = Method.GUIDED,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Purifier of the same model to start from.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            help="Also train against attackers who know the purifier.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            help="Rms of white noise added to the model's input before purification, in its units.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = 0.0,
    snr_db: Annotated[
        float | None,
        typer.Option(
            help="Audio only: add white noise at this signal-to-noise ratio to the waveform first; "
            "10 to 20 dB are most effective against attackers who know the purifier.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = None,
    eps: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Weakest and strongest attack on the model's input to train against, from 0 to "
            "1; default: 2/255 and 20/255, for images 1/255 and 12/255.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = None,
    input_weight: Annotated[
        float | None,
        typer.Option(
            help="Weight of small changes in the loss; default: 20, for images 10. Lower it "
            "against stronger attacks.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of attack to leave out of the training, to test the purifier on unknown "
            f"attacks: {', '.join(ATTACK_FAMILIES)}. May be repeated.",
            rich_help_panel=GUIDED_PANEL,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(help="Number of training steps.", rich_help_panel=GUIDED_PANEL)
    ] = GUIDED_STEPS,
    candidates: Annotated[
        int,
        typer.Option(
            help="Pool: number of inverse perturbations.", rich_help_panel=COMPARISON_PANEL
        ),
    ] = 256,
    quorum: Annotated[
        float,
        typer.Option(
            help="Pool: share of the clean items in which a template neuron must be influential.",
            rich_help_panel=COMPARISON_PANEL,
        ),
    ] = 0.9,
    share: Annotated[
        float,
        typer.Option(
            help="Ns: share of the neurons of a layer that each class keeps.",
            rich_help_panel=COMPARISON_PANEL,
        ),
    ] = 0.9,
    crop_s: Annotated[
        float | None,
        typer.Option(
            help="Audio only: length of the crops in seconds; default: 2.", rich_help_panel=INPUT
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Crops or images per batch.", rich_help_panel=ADVANCED)
    ] = 32,
    seed: Annotated[
        int, typer.Option(help="Seed of all random numbers.", rich_help_panel=ADVANCED)
    ] = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a purifier to a model on clean recordings or images, without labels.

    A guided purifier takes some minutes; run the same command again to resume
    an interrupted training. The model decides whether recordings or images are
    read.

    Example: nip-audio fit-purifier clean/ --model resnet34-libri30 --out
    my.purifier
    """
    from nip_audio.cli._inputs import find_files, load_model, make_reader, refuse_options
    from nip_audio.core.state import require_new
    from nip_audio.purifiers.nip_guided import GuidedNip
    from nip_audio.purifiers.nip_pool import PoolSettings
    from nip_audio.workflows.clean_data import read_benign
    from nip_audio.workflows.fit import fit_neurons, fit_pool, fit_sparse_coding

    require_new(out, force=force)
    pretrained = load_model(model, modality)
    given = {"--snr-db": snr_db, "--crop-s": crop_s, "--max-duration": max_duration}
    refuse_options(pretrained, "fit-purifier", given)
    guided = _guided_settings(pretrained, eps, input_weight, snr_db, adaptive)
    guided = replace(guided, steps=steps, noise=noise, seed=seed)
    guided = _without(guided, leave_out or [])
    pool = PoolSettings(quorum=quorum)
    first = None if start is None else GuidedNip.load(start, model_id=pretrained.model_id)
    parts = (find_files(pretrained, part, data_root, follow_links=follow_links) for part in source)
    reader = make_reader(pretrained, max_duration)
    benign = read_benign((file for part in parts for file in part), reader, crop_s=crop_s)
    started = time.monotonic()
    kept: float | None = None
    if method is Method.GUIDED:
        kept = _fit_guided(pretrained, benign, guided, first, out, batch_size, force)
    elif method is Method.NS:
        neurons = fit_neurons(pretrained, benign, share=share, batch_size=batch_size, seed=seed)
        neurons.save(out, model_id=pretrained.model_id, force=force)
    elif method is Method.STL:
        coding = fit_sparse_coding(pretrained, benign, batch_size=batch_size, seed=seed)
        coding.save(out, model_id=pretrained.model_id, force=force)
    else:
        with progress_bar("fitting", candidates) as bar:
            fit_pool(
                pretrained,
                benign,
                pool,
                candidates=candidates,
                batch_size=batch_size,
                seed=seed,
                progress=lambda done: bar.update(bar.task_ids[0], completed=done),
            ).save(out, force=force)
    print_skipped(benign.failures)
    files = len(benign.contents)
    if as_json:
        failed = [str(failure) for failure in benign.failures]
        facts = {"out": str(out), "method": method.value, "files": files}
        print_json(facts | {"failed": failed, "kept": kept, "model_id": pretrained.model_id})
    else:
        stdout.print(
            f"{method.value} purifier for {pretrained.card.name}, fitted to {files} files in "
            f"{time.monotonic() - started:.0f} s: {out}",
            markup=False,
            soft_wrap=True,
        )
    if kept is not None and kept < _FEW_KEPT:
        stderr.print(
            f"the model keeps its prediction on only {kept:.0%} of the last training examples, so "
            "this purifier does not defend yet; pass more --steps, or weaker attacks with --eps",
            soft_wrap=True,
        )
    if benign.failures:
        raise typer.Exit(EXIT_FAILED)


def _guided_settings(
    pretrained: PretrainedModel,
    eps: tuple[float, float] | None,
    input_weight: float | None,
    snr_db: float | None,
    adaptive: bool,
) -> GuidedSettings:
    """Return the settings of the training, with defaults for the modality of the model."""
    from nip_audio.workflows.fit import guided_settings

    settings = guided_settings(pretrained)
    if snr_db is not None:
        settings = replace(settings, raw_share=1.0, snr_db=snr_db)
    if eps is not None:
        settings = replace(settings, eps_input=eps)
    if input_weight is not None:
        settings = replace(settings, input_weight=input_weight)
    return replace(settings, **_ADAPTIVE) if adaptive else settings


def _without(settings: GuidedSettings, left_out: Sequence[str]) -> GuidedSettings:
    """Leave kinds of attacks out of the training.

    Raises:
        InputError: If a kind is unknown, or if none is left.
    """
    from nip_audio.purifiers.training_attacks import FAMILIES

    if unknown := sorted(set(left_out) - set(FAMILIES)):
        raise InputError(f"no kind of attack {unknown[0]!r}; {suggest_names(unknown[0], FAMILIES)}")
    families = tuple(name for name in settings.families if name not in left_out)
    if not families:
        raise InputError(
            f"--leave-out {', '.join(left_out)} leaves no kind of attack to train against, "
            "expected at least one; leave fewer out"
        )
    return replace(settings, families=families)


def _fit_guided(
    pretrained: PretrainedModel,
    benign: Benign,
    settings: GuidedSettings,
    start: GuidedNip | None,
    out: Path,
    batch_size: int,
    force: bool,
) -> float | None:
    """Train and write a guided purifier; return the share of predictions kept at the end."""
    from nip_audio.workflows.fit import fit_guided

    partial = out.with_name(f"{out.name}.partial")
    shares: deque[float] = deque(maxlen=_LAST)
    with progress_bar("training", settings.steps) as bar:

        def report(step: int, loss: float, kept: float) -> None:  # noqa: ARG001
            shares.append(kept)
            bar.update(
                bar.task_ids[0],
                completed=step,
                description=f"training, {kept:.0%} of predictions kept",
            )

        purifier = fit_guided(
            pretrained,
            benign,
            settings,
            batch_size=batch_size,
            start=start,
            checkpoint=partial,
            progress=report,
        )
    purifier.save(out, model_id=pretrained.model_id, force=force)
    partial.unlink(missing_ok=True)
    return sum(shares) / len(shares) if shares else None


_LAST = 20  # final steps over which the quality of a purifier is averaged
_FEW_KEPT = 0.5

# A quarter of the steps uses attackers who do not know the purifier, so that it stays good against
# them. Attacks stronger than any defence withstands teach it nothing, and only gradient attacks can
# adapt to the purifier.
_ADAPTIVE: dict[str, Any] = {
    "adaptive_share": 0.75,
    "families": ("gradient",),
    "eps_raw": (5e-4, 4e-3),
}
