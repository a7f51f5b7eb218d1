"""The command ``nip-audio attack``, which writes adversarial copies of files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import print_json, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ADVANCED,
    CalibrationOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    ModelOption,
    SeedOption,
)
from nip_audio.cli._registered import attack_names
from nip_audio.errors import FileError

if TYPE_CHECKING:
    from nip_audio.workflows.files import Outcome


__all__ = ["command"]

DEFAULT_EPS = 0.002


class GoalName(StrEnum):
    """Goal of the attacker."""

    accept = "accept"
    reject = "reject"
    misidentify = "misidentify"


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
        typer.Option("--attack", "-a", help=f"Name of the attack: {', '.join(attack_names())}."),
    ] = "pgd",
    eps: Annotated[
        float | None,
        typer.Option(
            help=f"Largest change of a sample (full scale is 1) or pixel; default: {DEFAULT_EPS}, "
            "for images 8/255. For pgd-l2, the Euclidean norm of the whole change, "
            "without a default."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Number of steps; default: that of the attack.", rich_help_panel=ADVANCED
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            help="Largest number of queries per file; default: that of the attack.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    enrolment: Annotated[
        Path | None,
        typer.Option("--enrolment", "-e", help="Enrolment file, written by nip-audio enroll."),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option("--speaker", "-s", help="Enrolled speaker to be accepted as or rejected."),
    ] = None,
    goal: Annotated[
        GoalName | None,
        typer.Option(
            help="Audio only. reject (the default) or accept: decision on --speaker; misidentify: "
            "be identified as any other speaker of the model."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Label of the model to be identified as.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine at which the system accepts; default: that of the calibration.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    model: ModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
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
    from nip_audio.workflows.attack import attack_files, make_file_attack
    from nip_audio.workflows.files import AttackGoal

    pretrained = load_model(model, modality)
    given = {"--enrolment": enrolment, "--speaker": speaker, "--threshold": threshold}
    given |= {"--goal": goal, "--calibration": calibration, "--max-duration": max_duration}
    refuse_options(pretrained, "attack", given)
    taken = modality_of(pretrained.card)
    settings = {"steps": steps, "queries": queries}
    chosen = make_file_attack(attack, taken, eps=eps, settings=settings)
    if goal is None:
        goal = GoalName(taken.default_goal) if target is None else GoalName.reject
    if target is None and goal is not GoalName.misidentify:
        threshold = find_threshold(pretrained, calibration, threshold, options="--")
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id) if enrolment else None

    def tell(done: Outcome | FileError) -> None:
        if isinstance(done, FileError):
            stderr.print(str(done), markup=False, highlight=False, soft_wrap=True)
        elif not as_json:
            stdout.print(done.line, markup=False, highlight=False, soft_wrap=True)

    written, failures = attack_files(
        *(pretrained, files, out, chosen),
        AttackGoal(threshold, goal.value, voices, speaker, target),
        make_reader(pretrained, max_duration),
        name=attack,
        seed=seed,
        force=force,
        progress=tell,
    )
    if as_json:
        failed = [str(failure) for failure in failures]
        print_json({"written": [done.to_json() for done in written], "failed": failed})
    if failures:
        raise typer.Exit(EXIT_FAILED)
