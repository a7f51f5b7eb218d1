"""The command ``nip-audio calibrate``, which fits a calibration to clean files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nip_audio.cli._console import (
    evaluation_progress,
    print_json,
    print_skipped,
    stderr,
    stdout,
)
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    ChannelOption,
    DataRootOption,
    FollowLinksOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SeedOption,
    SpeakerFromOption,
)

if TYPE_CHECKING:
    from nip_audio.screening.calibration import Calibration
    from nip_audio.workflows.calibrate import Calibrated

__all__ = ["command"]

_RATES = (0.01, 0.05, 0.1)


def command(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders of clean recordings or images, or manifests of recordings."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write.")],
    model: ModelOption = None,
    modality: ModalityOption = None,
    data_root: DataRootOption = None,
    speaker_from: SpeakerFromOption = None,
    follow_links: FollowLinksOption = False,
    describe: Annotated[
        str, typer.Option(help="Description of the files, stored in the calibration.")
    ] = "",
    clean_only: Annotated[
        bool,
        typer.Option(
            "--clean-only",
            help="Make no attacks: quicker, and takes noise for an attack more often.",
        ),
    ] = False,
    tolerate_noise: Annotated[
        float | None,
        typer.Option(
            help="With --clean-only, audio only: noise up to this rms (full scale is 1) is to "
            "raise no alarm, e.g. 0.01.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    names: Annotated[
        bool | None,
        typer.Option(
            help="Audio only: judge by the model's prediction (for its own speakers) or by the "
            "embedding (for any speaker). Default: by the prediction, if the model has logits.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="With --clean-only: noise draws per file and kind of noise.",
            rich_help_panel=ADVANCED,
        ),
    ] = 1,
    keep_outliers: Annotated[
        bool,
        typer.Option(
            "--keep-outliers",
            help="Learn from files that look attacked as well; they are named and left out "
            "otherwise. With --clean-only, nothing is left out.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate the detector on clean recordings or images of your own.

    At least 20 different files are needed, which allow --fpr 0.05; 99 files
    allow 0.01. With one sub-folder per speaker and two recordings of some
    speakers, the voices of a speaker's files can be compared too. All files
    must be genuine: an attacked one would be learned as clean. A file that
    looks attacked is named and left out (exit code 4): listen to it, and to
    the farthest of the rest, which are named as well.

    The detector learns from attacks that are made on these recordings and on
    this model, and from harmless changes of them: noise, rooms, codecs,
    telephones. Run it again if it is interrupted: it goes on. A model that
    has no purifier gets one first, from half of the speakers: it needs 40
    files of ten speakers, or --clean-only.

    Example: nip-audio calibrate clean/ --out my.calibration
    """
    from nip_audio.cli._inputs import find_files, load_model, make_reader, refuse_options
    from nip_audio.errors import InputError
    from nip_audio.models.adopted import attach_companion
    from nip_audio.screening.modalities import KINDS
    from nip_audio.workflows.calibrate import calibrate_files, without_attacks

    pretrained = load_model(model, modality)
    given = {
        "--tolerate-noise": tolerate_noise,
        "--max-duration": max_duration,
        "--channel": channel,
        "--speaker-from": speaker_from,
    }
    refuse_options(pretrained, "calibrate", given | {"--names or --no-names": names})
    plain = draws != 1 or tolerate_noise is not None
    if plain and not clean_only and without_attacks(pretrained) is None:
        raise InputError(
            "--draws and --tolerate-noise belong to --clean-only, expected it as well; without "
            "it, noise raises no alarm anyway"
        )
    parts = (
        find_files(
            pretrained, part, data_root, follow_links=follow_links, speaker_from=speaker_from
        )
        for part in source
    )
    files = [file for part in parts for file in part]
    with evaluation_progress() as progress:
        done = calibrate_files(
            pretrained,
            files,
            make_reader(pretrained, max_duration, channel),
            out,
            clean_only=clean_only,
            names=names,
            draws=draws,
            tolerated_noise_rms=tolerate_noise,
            seed=seed,
            sources=describe or ", ".join(part.name for part in source),
            force=force,
            keep_outliers=keep_outliers,
            progress=progress,
        )
    result = done.calibration
    attached = attach_companion(pretrained.card, "calibration", out)
    print_skipped(result.failures)
    used = result.files
    if as_json:
        failed = [str(failure) for failure in result.failures]
        far = [{"file": name, "distance": distance} for name, distance in result.farthest]
        found = {"found": done.found, "mistaken": done.mistaken, **_learned(result)}
        found |= {"farthest": far}
        print_json(
            {"out": str(out), "files": used, "failed": failed, "model_id": result.model_id} | found
        )
    else:
        if done.found:
            _print_shares(done)
        stdout.say(_thresholds(result))
        stdout.say(
            f"calibrated on {used} files, which allow a false-positive rate of "
            f"{1 / (used + 1):.2%} or more: {out}"
        )
        named = ", ".join(f"{name} ({distance:.2f})" for name, distance in result.farthest)
        stdout.say(
            f"farthest from the others, which decides what is flagged; listen to them: {named}"
        )
        if attached:
            stdout.say(f"{pretrained.card.directory} uses it by default")
    notes = (done.note, KINDS[result.tag].calibration_note(result))
    for note in filter(None, notes):
        stderr.print(note)
    if result.failures:
        raise typer.Exit(EXIT_FAILED)


def _learned(calibration: Calibration) -> dict[str, Any]:
    """Return what a calibration has learned, as plain JSON values."""
    from nip_audio.screening.probes import Place

    rates = [rate for rate in _RATES if rate >= calibration.lowest_rate]
    places = {"thresholds": Place()}
    if calibration.narrow_domain is not None:
        places["telephone_thresholds"] = Place(narrow=True)
    thresholds = {
        name: {rate: calibration.threshold(rate, place) for rate in rates}
        for name, place in places.items()
    }
    return {
        "allowed_rate": calibration.lowest_rate,
        **thresholds,
        "verification_threshold": calibration.verification_threshold,
    }


def _thresholds(calibration: Calibration) -> str:
    """Return the thresholds in words."""
    learned = _learned(calibration)
    parts = [
        f"a file is flagged above the distance {', '.join(told)}{where}"
        for name, where in (
            ("thresholds", ""),
            ("telephone_thresholds", " where it is no wider than a telephone"),
        )
        if (told := [f"{limit:.2f} at {rate:.0%}" for rate, limit in learned.get(name, {}).items()])
    ]
    if calibration.verification_threshold is not None:
        parts.append(
            f"two recordings are one voice from the cosine {calibration.verification_threshold:.2f}"
        )
    return "; ".join(parts)


def _print_shares(done: Calibrated) -> None:
    """Print what the detector finds and mistakes, on windows of speakers it was not fitted on."""
    from nip_audio.screening.changes import CHANGES

    rates = list(next(iter(done.found.values())))
    table = Table("made from these recordings", *(f"flagged at {r:.0%}" for r in rates))
    for shares in (done.found, done.mistaken):
        for name, at in shares.items():
            what = CHANGES[name].range if name in CHANGES else name
            table.add_row(what, *(f"{at[rate]:.1%}" for rate in rates))
        table.add_section()
    stdout.print(table)
