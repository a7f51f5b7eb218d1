"""``nip-audio attack``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nip_audio.cli._console import print_json, stderr, stdout
from nip_audio.cli._exit import EXIT_FAILED
from nip_audio.cli._options import (
    ATTACK_NAMES,
    CalibrationOption,
    EitherModelOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModalityOption,
    SeedOption,
)
from nip_audio.errors import AudioError

if TYPE_CHECKING:
    from nip_audio.workflows.attack import AttackedFile


__all__ = ["command"]

DEFAULT_EPS = 0.002


class GoalName(StrEnum):
    """What the attacker wants."""

    accept = "accept"
    reject = "reject"
    misidentify = "misidentify"


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Clean recordings, or pictures for a model of pictures.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for wavs, or PNGs, and JSON sidecars.")
    ],
    attack: Annotated[
        str, typer.Option("--attack", "-a", help=f"One of {', '.join(ATTACK_NAMES)}.")
    ] = "pgd",
    eps: Annotated[
        float | None,
        typer.Option(
            help=f"Largest change of a sample, full scale being 1; default: {DEFAULT_EPS}, of a "
            "pixel 8/255, where the attack takes one. For pgd-l2, the Euclidean norm of the whole "
            "change; no default."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps, of those that take any; default: the attack's own.")
    ] = None,
    queries: Annotated[int | None, typer.Option(help="Most inputs scored, likewise.")] = None,
    enrolment: Annotated[
        Path | None, typer.Option("--enrolment", "-e", help="Made by enroll.")
    ] = None,
    speaker: Annotated[
        str | None, typer.Option("--speaker", "-s", help="Enrolled speaker concerned.")
    ] = None,
    goal: Annotated[
        GoalName | None,
        typer.Option(
            help="Of audio: accept or reject: of --speaker, the default; misidentify: be named as "
            "anybody else."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Be identified as this of the names that the model gives.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Cosine the system accepts from; default: calibrated.")
    ] = None,
    model: EitherModelOption = None,
    modality: ModalityOption = None,
    calibration: CalibrationOption = None,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make adversarial copies of recordings, or pictures, of your own, to test a defence.

    Exit code 0 says that the copies were written, whether they fool the model or not. Rounding to
    16 bits can add 1.5e-5 to eps. Without --speaker, --target and --goal misidentify the aim is not
    to be verified against the recording itself. There the score is at its maximum and has no slope,
    so an attack that would start at the recording starts from a small random step beside it.

    Example: nip-audio attack a.wav --attack pgd --eps 0.002 --out attacked/
    """
    from nip_audio.attacks.registry import attack_entry, make_attack
    from nip_audio.cli._inputs import find_threshold, load_model, make_adapter, refuse_of_audio
    from nip_audio.cli._outputs import claim_outputs
    from nip_audio.cli._pictures import attack_pictures
    from nip_audio.models.enrolment import Enrolment
    from nip_audio.workflows.attack import AttackGoal, attack_file

    settings = {"steps": steps, "queries": queries}
    pretrained = load_model(model, modality)
    of_audio = {"--enrolment": enrolment, "--speaker": speaker, "--threshold": threshold}
    of_audio |= {"--goal": goal, "--calibration": calibration, "--max-duration": max_duration}
    refuse_of_audio(pretrained, of_audio)
    if pretrained.card.modality == "image":
        attack_pictures(
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
        else "nothing to do, the recording already does"
        if result.succeeded_before
        else "does not fool the model"
    )
    return (
        f"{result.written}: {word} ({result.aim}; score {result.score_before:.3f} → "
        f"{result.score_after:.3f} in the written file, SNR {result.snr_db:.1f} dB)"
    )
