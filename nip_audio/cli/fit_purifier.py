"""``nip-audio fit-purifier``."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nip_audio.cli._console import (
    DEFAULT_MODEL,
    EXIT_FAILED,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModelOption,
    find_recordings,
    make_adapter,
    print_json,
    print_left_out,
    progress_bar,
    stdout,
)
from nip_audio.core.state import require_new
from nip_audio.models.pretrained import PretrainedModel, load_pretrained
from nip_audio.purification.fit import (
    CleanClips,
    fit_guided,
    fit_neurons,
    fit_pool,
    read_clips,
)
from nip_audio.purifiers.guided_training import GuidedSettings
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.nip_pool import PoolSettings

__all__ = ["Method", "command"]


class Method(StrEnum):
    """What can be fitted."""

    GUIDED = "guided"
    POOL = "pool"
    NS = "ns"


def command(
    source: Annotated[list[Path], typer.Argument(help="Folders of clean audio, or CSV manifests.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Purifier file to write.")],
    model: ModelOption = DEFAULT_MODEL,
    data_root: DataRootOption = None,
    follow_links: FollowLinksOption = False,
    method: Annotated[
        Method,
        typer.Option(
            help="guided works; pool, the published NIP, and ns, neuron selecting, are there for "
            "comparison; ns is no purifier of sound, only evaluations take it."
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
        float, typer.Option(help="Guided: white noise before it, rms in units of the spectrogram.")
    ] = 0.0,
    snr_db: Annotated[
        float | None,
        typer.Option(
            help="Guided: put white noise at this ratio into the waveform first, as plain noise "
            "does; 10 to 20 dB cost an attacker who knows it most."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Guided: training steps.")] = GuidedSettings.steps,
    candidates: Annotated[int, typer.Option(help="Pool: inverse perturbations.")] = 256,
    quorum: Annotated[
        float, typer.Option(help="Pool: share of the clean crops that a template neuron is in.")
    ] = 0.9,
    share: Annotated[
        float, typer.Option(help="NS: share of a layer's neurons that each speaker keeps.")
    ] = 0.9,
    crop_s: Annotated[float, typer.Option(help="Seconds of the crops.")] = 2.0,
    batch_size: Annotated[int, typer.Option(help="Crops at a time.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    max_duration: MaxDurationOption = 120.0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a purifier to a model on clean audio of your own; no labels are needed.

    A guided one takes some minutes; interrupted and started again, it goes on where it stopped.

    Example: nip-audio fit-purifier clean/ --model resnet34-libri30 --out my.purifier
    """
    require_new(out, force=force)
    pretrained = load_pretrained(model)
    guided = GuidedSettings(
        steps=steps,
        raw_share=GuidedSettings.raw_share if snr_db is None else 1.0,
        noise=noise,
        snr_db=snr_db,
        seed=seed,
        **(_ADAPTIVE if adaptive else {}),
    )
    pool = PoolSettings(quorum=quorum)
    first = None if start is None else GuidedNip.load(start, model_id=pretrained.model_id)
    parts = (find_recordings(part, data_root, follow_links=follow_links) for part in source)
    recordings = [recording for part in parts for recording in part]
    clips = read_clips(recordings, make_adapter(pretrained, max_duration))
    started = time.monotonic()
    if method is Method.GUIDED:
        _fit_guided(pretrained, clips, guided, first, out, crop_s, batch_size, force)
    elif method is Method.NS:
        neurons = fit_neurons(
            pretrained, clips, share=share, crop_s=crop_s, batch_size=batch_size, seed=seed
        )
        neurons.save(out, model_id=pretrained.model_id, force=force)
    else:
        with progress_bar("fitting", candidates) as bar:
            fit_pool(
                pretrained,
                clips,
                pool,
                candidates=candidates,
                crop_s=crop_s,
                batch_size=batch_size,
                seed=seed,
                progress=lambda done: bar.update(bar.task_ids[0], completed=done),
            ).save(out, force=force)
    print_left_out(clips.failures)
    if as_json:
        failed = [str(failure) for failure in clips.failures]
        facts = {"out": str(out), "method": method.value, "files": len(clips.samples)}
        print_json(facts | {"failed": failed, "model_id": pretrained.model_id})
    else:
        stdout.print(
            f"{method.value} purifier for {model}, fitted to {len(clips.samples)} files in "
            f"{time.monotonic() - started:.0f} s: {out}",
            markup=False,
            soft_wrap=True,
        )
    if clips.failures:
        raise typer.Exit(EXIT_FAILED)


def _fit_guided(
    pretrained: PretrainedModel,
    clips: CleanClips,
    settings: GuidedSettings,
    start: GuidedNip | None,
    out: Path,
    crop_s: float,
    batch_size: int,
    force: bool,
) -> None:
    partial = out.with_name(f"{out.name}.partial")
    with progress_bar("training", settings.steps) as bar:
        purifier = fit_guided(
            pretrained,
            clips,
            settings,
            crop_s=crop_s,
            batch_size=batch_size,
            start=start,
            checkpoint=partial,
            progress=lambda step, loss, kept: bar.update(
                bar.task_ids[0], completed=step, description=f"training, {kept:.0%} kept"
            ),
        )
    purifier.save(out, model_id=pretrained.model_id, force=force)
    partial.unlink(missing_ok=True)


# a quarter of the attacked steps keeps it good against attackers who know less; strengths that no
# defence withstands teach it nothing, and other families than gradient steps are not for adaptation
_ADAPTIVE: dict[str, Any] = {
    "adaptive_share": 0.75,
    "families": ("gradient",),
    "eps_raw": (5e-4, 4e-3),
}

command.__name__ = "fit_purifier"
