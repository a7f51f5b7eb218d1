"""``nip-audio attack``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nip_audio.attacks.registry import make_attack
from nip_audio.cli._console import (
    DEFAULT_MODEL,
    EXIT_FAILED,
    CalibrationOption,
    ForceOption,
    JsonOption,
    MaxDurationOption,
    ModelOption,
    SeedOption,
    find_threshold,
    make_adapter,
    print_json,
    stderr,
    stdout,
)
from nip_audio.errors import AudioError
from nip_audio.evaluation.adversarial_files import AttackedFile, AttackGoal, attack_file
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.pretrained import load_pretrained

__all__ = ["command"]


class GoalName(StrEnum):
    """What the attacker wants of a verification system."""

    accept = "accept"
    reject = "reject"


def command(
    files: Annotated[list[Path], typer.Argument(help="Clean recordings.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for wavs and JSON sidecars.")],
    attack: Annotated[str, typer.Option("--attack", "-a", help="fgsm or pgd.")] = "pgd",
    eps: Annotated[
        float, typer.Option(help="Largest change of a sample; full scale is 1.")
    ] = 0.002,
    steps: Annotated[
        int | None, typer.Option(help="Steps, of those that take any; default: the attack's own.")
    ] = None,
    enrolment: Annotated[
        Path | None, typer.Option("--enrolment", "-e", help="Made by enroll.")
    ] = None,
    speaker: Annotated[
        str | None, typer.Option("--speaker", "-s", help="Enrolled speaker concerned.")
    ] = None,
    goal: Annotated[
        GoalName, typer.Option(help="With --speaker: what is wanted.")
    ] = GoalName.reject,
    target: Annotated[
        str | None, typer.Option(help="Be identified as this speaker of the closed set.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Cosine the system accepts from; default: calibrated.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    calibration: CalibrationOption = None,
    seed: SeedOption = 0,
    max_duration: MaxDurationOption = 120.0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make adversarial copies of recordings of your own, to test a defence.

    Exit code 0 says that the copies were written, whether they fool the model or not. Rounding to
    16 bits can add 1.5e-5 to eps.
    Without --speaker and --target the aim is not to be verified against the recording itself.

    Example: nip-audio attack a.wav --attack pgd --eps 0.002 --out attacked/
    """
    chosen = make_attack(attack, eps=eps, settings={"steps": steps})
    pretrained = load_pretrained(model)
    threshold = find_threshold(pretrained, calibration, threshold)
    voices = Enrolment.load(enrolment, model_id=pretrained.model_id) if enrolment else None
    aim = AttackGoal(threshold, goal.value, voices, speaker, target)
    out.mkdir(parents=True, exist_ok=True)
    adapter = make_adapter(pretrained, max_duration)
    done: list[AttackedFile] = []
    for file in files:
        try:
            written = out / f"{file.stem}.{attack}.wav"
            done.append(
                attack_file(pretrained, file, written, chosen, aim, adapter, seed=seed, force=force)
            )
        except AudioError as err:
            stderr.print(str(err), markup=False, highlight=False, soft_wrap=True)
            continue
        if not as_json:
            stdout.print(_line(done[-1]), markup=False, soft_wrap=True)
    if as_json:
        print_json([result.to_json() for result in done])
    if len(done) < len(files):
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


command.__name__ = "attack"
