"""``nip-audio fit-purifier``."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nip_audio.audio.manifest import Recording
from nip_audio.cli._console import (
    EXIT_FAILED,
    DataRootOption,
    EitherModelOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    find_files,
    load_model,
    make_adapter,
    print_json,
    print_left_out,
    progress_bar,
    refuse_of_audio,
    stderr,
    stdout,
)
from nip_audio.core.near import suggest_names
from nip_audio.core.state import require_new
from nip_audio.errors import InputError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purification.benign import Benign, read_clips, read_pictures
from nip_audio.purification.fit import (
    GUIDED_ON_PICTURES,
    fit_guided,
    fit_neurons,
    fit_pool,
    fit_sparse_coding,
)
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import PoolSettings
from nip_audio.purifiers.training_attacks import FAMILIES

__all__ = ["Method", "command"]

CROP_S = 2.0


class Method(StrEnum):
    """What can be fitted."""

    GUIDED = "guided"
    POOL = "pool"
    NS = "ns"
    STL = "stl"


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean audio or pictures, or CSV manifests of audio."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Purifier file to write.")],
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    method: Annotated[
        Method,
        typer.Option(
            help="guided works; pool, the published NIP, stl, sparse coding, and ns, neuron "
            "selecting, are there for comparison; ns changes no input, only evaluations take it."
        ),
    ] = Method.GUIDED,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Guided: purifier of the same model to go on from."),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option(help="Guided: train against attackers who know the purifier, too.")
    ] = False,
    noise: Annotated[
        float,
        typer.Option(help="Guided: white noise before it, rms in units of the model's input."),
    ] = 0.0,
    snr_db: Annotated[
        float | None,
        typer.Option(
            help="Guided: put white noise at this ratio into the waveform first, as plain noise "
            "does; 10 to 20 dB cost an attacker who knows it most."
        ),
    ] = None,
    eps: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Guided: weakest and strongest attack on the model's input, in 0 to 1, that it "
            "learns from; default: 2/255 and 20/255, of pictures 1/255 and 12/255."
        ),
    ] = None,
    input_weight: Annotated[
        float | None,
        typer.Option(
            help="Guided: weight of how little it changes; default: 20, of pictures 10; less "
            "for stronger attacks."
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Guided: kind of attack that it is not to learn from, to see what it does about "
            f"unknown ones: {', '.join(FAMILIES)}. May be repeated."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Guided: training steps.")] = GuidedSettings.steps,
    candidates: Annotated[int, typer.Option(help="Pool: inverse perturbations.")] = 256,
    quorum: Annotated[
        float, typer.Option(help="Pool: share of the clean items that a template neuron is in.")
    ] = 0.9,
    share: Annotated[
        float, typer.Option(help="NS: share of a layer's neurons that each class keeps.")
    ] = 0.9,
    crop_s: Annotated[
        float | None, typer.Option(help="Seconds of the crops of audio; default: 2.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Crops or pictures at a time.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a purifier to a model on clean audio, or pictures, of your own; no labels are needed.

    A guided one takes some minutes; interrupted and started again, it goes on where it stopped.
    Whether audio or pictures are read follows from the model.

    Example: nip-audio fit-purifier clean/ --model resnet34-libri30 --out my.purifier
    """
    require_new(out, force=force)
    pretrained = load_model(model, modality)
    of_audio = {"--snr-db": snr_db, "--crop-s": crop_s, "--max-duration": max_duration}
    refuse_of_audio(pretrained, of_audio)
    guided = _guided_settings(pretrained, eps, input_weight, snr_db, adaptive)
    guided = replace(guided, steps=steps, noise=noise, seed=seed)
    guided = _without(guided, leave_out or [])
    pool = PoolSettings(quorum=quorum)
    first = None if start is None else GuidedNip.load(start, model_id=pretrained.model_id)
    parts = (find_files(pretrained, part, data_root, follow_links=follow_links) for part in source)
    benign = _read(pretrained, [file for part in parts for file in part], max_duration, crop_s)
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
    print_left_out(benign.failures)
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
            f"of what it was shown last, attacked or not, {kept:.0%} is named as without an "
            "attack: it does not defend yet; give more --steps, or weaker attacks by --eps",
            soft_wrap=True,
        )
    if benign.failures:
        raise typer.Exit(EXIT_FAILED)


def _read(
    pretrained: PretrainedModel,
    files: Sequence[Recording],
    max_duration_s: float | None,
    crop_s: float | None,
) -> Benign:
    """Read what is fitted to, into memory."""
    card = pretrained.card
    if card.modality == "image":
        return read_pictures(files, ImageAdapter(*card.image_shape))
    seconds = CROP_S if crop_s is None else crop_s
    if not math.isfinite(seconds):
        raise InputError(f"--crop-s is {seconds}, expected seconds, e.g. {CROP_S:g}")
    crop_samples = round(seconds * card.sample_rate_hz)
    return read_clips(files, make_adapter(pretrained, max_duration_s)).cropped(crop_samples)


def _guided_settings(
    pretrained: PretrainedModel,
    eps: tuple[float, float] | None,
    input_weight: float | None,
    snr_db: float | None,
    adaptive: bool,
) -> GuidedSettings:
    """Return what is trained against, and what is asked of the purifier."""
    settings = GUIDED_ON_PICTURES if pretrained.card.modality == "image" else GuidedSettings()
    if snr_db is not None:
        settings = replace(settings, raw_share=1.0, snr_db=snr_db)
    if eps is not None:
        settings = replace(settings, eps_input=eps)
    if input_weight is not None:
        settings = replace(settings, input_weight=input_weight)
    return replace(settings, **_ADAPTIVE) if adaptive else settings


def _without(settings: GuidedSettings, left_out: Sequence[str]) -> GuidedSettings:
    """Leave kinds of attacks out.

    Raises:
        InputError: If one is unknown, or none is left.
    """
    if unknown := sorted(set(left_out) - set(FAMILIES)):
        raise InputError(f"no kind of attack {unknown[0]!r}; {suggest_names(unknown[0], FAMILIES)}")
    families = tuple(name for name in settings.families if name not in left_out)
    if not families:
        raise InputError(
            f"{', '.join(left_out)} are left out, which leaves no kind of attack to learn from; "
            "leave fewer out"
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
    """Train and write; return the share of its last lessons that it kept, if there were any."""
    partial = out.with_name(f"{out.name}.partial")
    shares: deque[float] = deque(maxlen=_LAST)
    with progress_bar("training", settings.steps) as bar:

        def report(step: int, loss: float, kept: float) -> None:  # noqa: ARG001
            shares.append(kept)
            bar.update(bar.task_ids[0], completed=step, description=f"training, {kept:.0%} kept")

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


_LAST = 20  # steps that say how good a purifier has become
_FEW_KEPT = 0.5

# a quarter of the attacked steps keeps it good against attackers who know less; strengths that no
# defence withstands teach it nothing, and other families than gradient steps are not for adaptation
_ADAPTIVE: dict[str, Any] = {
    "adaptive_share": 0.75,
    "families": ("gradient",),
    "eps_raw": (5e-4, 4e-3),
}

command.__name__ = "fit_purifier"
