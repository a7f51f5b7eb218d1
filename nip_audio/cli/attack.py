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
from nip_audio.errors import AudioError

if TYPE_CHECKING:
    from nip_audio.workflows.attack import AttackedFile


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
    from nip_audio.attacks.registry import attack_entry, make_attack
    from nip_audio.cli._images import attack_images
    from nip_audio.cli._inputs import find_threshold, load_model, make_adapter, refuse_audio_options
    from nip_audio.cli._outputs import claim_outputs
    from nip_audio.models.enrolment import Enrolment
    from nip_audio.workflows.attack import AttackGoal, attack_file

    settings = {"steps": steps, "queries": queries}
    pretrained = load_model(model, modality)
    audio_only = {"--enrolment": enrolment, "--speaker": speaker, "--threshold": threshold}
    audio_only |= {"--goal": goal, "--calibration": calibration, "--max-duration": max_duration}
    refuse_audio_options(pretrained, audio_only)
    if pretrained.card.modality == "image":
        attack_images(
            *(pretrained, files, out),
            attack=attack,
            eps=eps,
            settings=settings,
            target=target,
            seed=seed,
            force=force,
            as_json=as_json,
        )
        return
    goal = goal or GoalName.reject
    entry = attack_entry(attack)
    if eps is None and "eps" in entry.settings and entry.kind.norm != "l2":
        eps = DEFAULT_EPS
    chosen = make_attack(attack, eps=eps, settings=settings)
    if target is None and goal is not GoalName.misidentify:
        threshold = find_threshold(pretrained, calibration, threshold)
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id) if enrolment else None
    aim = AttackGoal(threshold, goal.value, voices, speaker, target)
    adapter = make_adapter(pretrained, max_duration)
    ending = f".{attack}.wav"
    claimed = claim_outputs(
        files, out, ending, sidecar=f"{ending}.json", what="recordings", force=force
    )
    done: list[AttackedFile] = []
    failed: list[str] = []
    for file, written in zip(files, claimed, strict=True):
        try:
            done.append(
                attack_file(pretrained, file, written, chosen, aim, adapter, seed=seed, force=force)
            )
        except AudioError as err:
            failed.append(str(err))
            stderr.print(failed[-1], markup=False, highlight=False, soft_wrap=True)
            continue
        if not as_json:
            stdout.print(_line(done[-1]), markup=False, soft_wrap=True)
    if as_json:
        print_json({"written": [result.to_json() for result in done], "failed": failed})
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _line(result: AttackedFile) -> str:
    word = (
        "fools the model"
        if result.fools
        else "the recording fools the model without an attack"
        if result.succeeded_before
        else "does not fool the model"
    )
    return (
        f"{result.written}: {word} ({result.aim}; score {result.score_before:.3f} → "
        f"{result.score_after:.3f} in the written file, SNR {result.snr_db:.1f} dB)"
    )
