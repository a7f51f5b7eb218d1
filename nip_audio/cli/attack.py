"""The command ``nip-audio attack``, which writes adversarial copies of files."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import print_json, progress_bar, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    CalibrationOption,
    ChannelOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SeedOption,
)
from nip_audio.cli._registered import attack_names
from nip_audio.cli._settings import (
    SetOption,
    Setting,
    list_settings,
    read_settings,
    show_settings_option,
)
from nip_audio.errors import FileError

if TYPE_CHECKING:
    from nip_audio.workflows.files import Outcome


__all__ = ["command"]

GOAL = "Goal of the attacker"

DEFAULT_ATTACK = "pgd"
DEFAULT_EPS = 0.002


class GoalName(StrEnum):
    """Goal of the attacker."""

    accept = "accept"
    reject = "reject"
    misidentify = "misidentify"


def settings_of(attack: str) -> Sequence[Setting]:
    """Return the settings of an attack; the largest change has an option of its own."""
    from nip_audio.attacks.registry import attack_entry

    entry = attack_entry(attack)
    return list_settings(entry.kind, [name for name in entry.settings if name != "eps"])


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Clean recordings or images, as the model takes them.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for WAV or PNG files and their JSON sidecars."),
    ],
    attack: Annotated[
        str,
        typer.Option(
            "--attack",
            "-a",
            is_eager=True,
            help=f"Name of the attack: {', '.join(attack_names())}.",
        ),
    ] = DEFAULT_ATTACK,
    eps: Annotated[
        float | None,
        typer.Option(
            help=f"Largest change of a sample (full scale is 1) or pixel; default: {DEFAULT_EPS}, "
            "for images 8/255. For pgd-l2, the Euclidean norm of the whole change, "
            "without a default."
        ),
    ] = None,
    setting: SetOption = None,
    show_settings: Annotated[  # noqa: ARG001 - eager
        bool, show_settings_option("attack", DEFAULT_ATTACK, settings_of)
    ] = False,
    enrolment: Annotated[
        Path | None,
        typer.Option(
            "--enrolment",
            "-e",
            help="Enrolment file, written by nip-audio enroll.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(
            "--speaker",
            "-s",
            help="Enrolled speaker to be accepted as or rejected.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    goal: Annotated[
        GoalName | None,
        typer.Option(
            help="Audio only. reject (the default) or accept: decision on --speaker; misidentify: "
            "be identified as any other speaker of the model.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Label of the model to be identified as.", rich_help_panel=GOAL),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            help="Audio only: attack enrolment. This recording is to be accepted or rejected "
            "(--goal) by the voice that is enrolled from the copy, with --speaker together with "
            "the speaker's other recordings.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine at which the system accepts; default: that of the calibration.",
            rich_help_panel=GOAL,
        ),
    ] = None,
    estimate_threshold: Annotated[
        bool,
        typer.Option(
            "--estimate-threshold",
            help="The attacker does not know the threshold and first estimates it by queries, as "
            "in FAKEBOB; with --goal accept.",
            rich_help_panel=GOAL,
        ),
    ] = False,
    model: ModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    channel: ChannelOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write adversarial copies of recordings or images, to test a defence.

    Originals are never modified. Exit code 0 means that the copies were
    written, whether they fool the model or not. Rounding to 16 bits can add
    1.5e-5 to --eps. Without --speaker, --target and --goal misidentify, the aim
    is that the copy is no longer verified against the recording itself. The
    gradient of that score is zero at the recording, so the attack first takes a
    small random step.

    Example: nip-audio attack a.wav --attack pgd --eps 0.002 --out attacked/
    """
    from nip_audio.cli._inputs import load_model, make_reader, refuse_options
    from nip_audio.models.enrolment import Enrolment
    from nip_audio.models.modalities import modality_of
    from nip_audio.screening.calibration import find_threshold
    from nip_audio.workflows.attack import (
        attack_files,
        estimate_file_threshold,
        make_file_attack,
    )
    from nip_audio.workflows.files import AttackGoal, Probe

    settings = read_settings(setting or [], settings_of(attack), attack, options={"eps": "--eps"})
    pretrained = load_model(model, modality)
    given = {"--enrolment": enrolment, "--speaker": speaker, "--threshold": threshold}
    given |= {
        "--goal": goal,
        "--calibration": calibration,
        "--max-duration": max_duration,
        "--channel": channel,
    }
    given |= {"--probe": probe, "--estimate-threshold": estimate_threshold or None}
    refuse_options(pretrained, "attack", given)
    taken = modality_of(pretrained.card)
    chosen = make_file_attack(attack, taken, eps=eps, settings=settings)
    if goal is None:
        goal = GoalName(taken.default_goal) if target is None else GoalName.reject
    if target is None and goal is not GoalName.misidentify:
        threshold = find_threshold(pretrained, calibration, threshold, options="--")
    reader = make_reader(pretrained, max_duration, channel)
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id) if enrolment else None
    verified = Probe(probe, reader.load(probe).raw) if probe else None
    wanted = AttackGoal(threshold, goal.value, voices, speaker, target, verified)
    estimate = None
    if estimate_threshold:
        with progress_bar("estimating the threshold", None):
            estimate = estimate_file_threshold(pretrained, files, wanted, reader, seed=seed)

    def tell(done: Outcome | FileError) -> None:
        if isinstance(done, FileError):
            stderr.say(str(done))
        elif not as_json:
            stdout.say(done.line)

    written, failures = attack_files(
        *(pretrained, files, out, chosen, wanted, reader),
        name=attack,
        estimate=estimate,
        seed=seed,
        force=force,
        progress=tell,
    )
    if as_json:
        failed = [str(failure) for failure in failures]
        estimated = None if estimate is None else estimate.to_json()
        done = {"written": [one.to_json() for one in written], "failed": failed}
        print_json(done | {"threshold_estimate": estimated})
    elif estimate is not None:
        stdout.say(
            f"the attacker estimated the threshold {threshold:.3f} as {estimate.score:.3f} in "
            f"{estimate.queries} queries"
        )
    if failures:
        raise typer.Exit(EXIT_FAILED)
