"""Attack files, write the results, and judge the written files, not the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nip_audio.attacks.base import Attack
from nip_audio.attacks.registry import attack_entry, make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Modality, Reader
from nip_audio.errors import FileError, OutputError
from nip_audio.models.modalities import MODALITIES
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.workflows.files import AttackGoal, AttackRun, Outcome
from nip_audio.workflows.modalities import workflow_of
from nip_audio.workflows.outputs import claim_outputs, write_sidecar

__all__ = ["attack_file", "attack_files", "make_file_attack"]


def make_file_attack(
    name: str, modality: Modality, *, eps: float | None, settings: Mapping[str, Any]
) -> Attack:
    """Make an attack on files of a modality.

    Args:
        name: Name of the attack.
        modality: Modality of the files.
        eps: Largest change; None takes the default of the modality for an attack that is bounded by
            a largest change.
        settings: Other settings by name; None are the attack's own.

    Raises:
        AttackError: For an unknown name or setting, or an attack that does not apply.
    """
    entry = attack_entry(name)
    if eps is None and "eps" in entry.settings and entry.kind.norm != "l2":
        eps = modality.default_eps
    return make_attack(name, eps=eps, level=modality.attack_level, settings=settings)


def attack_file(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    attack: Attack,
    goal: AttackGoal,
    reader: Reader,
    *,
    seed: int = 0,
    force: bool = False,
) -> Any:
    """Attack one file, write the result and its sidecar, and describe the written file.

    Args:
        pretrained: Model to attack.
        path: Path of a clean file.
        out: Path of the file to write.
        attack: Attack to run.
        goal: Goal of the attacker.
        reader: Reader of the files.
        seed: Seed of the attack, combined with the content of the file.
        force: Whether an existing file is overwritten.

    Returns:
        ``Outcome`` of the modality: ``AttackedFile`` or ``ChangedImage``.

    Raises:
        FileError: If ``path`` cannot be used.
        AttackError: If the attack does not apply, or the target is unknown.
        OutputError: If an output exists and ``force`` is false, or ``out`` is the file itself.
    """
    modality = MODALITIES[reader.tag]
    sidecar = modality.attacked.sidecar(out)
    if out.exists() and path.resolve() == out.resolve():
        raise OutputError(f"{out} is the input itself; choose another --out")
    for output in (out, sidecar):
        if output.exists() and not force:
            raise OutputError(f"{output} exists already; pass --force to overwrite it")
    workflow = workflow_of(pretrained, reader, seed=seed)
    item = reader.load(path)
    objective = goal.objective(pretrained, item.raw)
    result = attack(objective, Batch(item.raw[None]), generator=workflow.attack_generator(item))
    reader.save(result.batch.x[0], out, force=force)
    run = AttackRun(
        path, out, item, reader.read_back(out), attack.settings(), goal, objective, result
    )
    outcome = workflow.attacked(run)
    write_sidecar(sidecar, outcome.to_json(), force=force)
    return outcome


def attack_files(
    pretrained: PretrainedModel,
    files: Sequence[Path],
    out: Path,
    attack: Attack,
    goal: AttackGoal,
    reader: Reader,
    *,
    name: str,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[Outcome | FileError], None] = lambda done: None,
) -> tuple[list[Outcome], list[FileError]]:
    """Attack files one after the other; return the outcomes and the errors of unusable files.

    Args:
        pretrained: Model to attack.
        files: Paths of clean files.
        out: Folder for the results; it is created.
        attack: Attack to run.
        goal: Goal of the attacker.
        reader: Reader of the files.
        name: Name of the attack, which becomes part of the names of the results.
        seed: Seed of the attack, combined with the content of each file.
        force: Whether existing files are overwritten, except inputs.
        progress: Called with each outcome, or the error of a file that cannot be used.

    Raises:
        InputError: If two files have the same output.
        OutputError: If an output exists and ``force`` is false, or is one of the inputs.
    """
    claimed = claim_outputs(files, out, MODALITIES[reader.tag], name=name, force=force)
    done: list[Outcome] = []
    failures: list[FileError] = []
    for path, written in zip(files, claimed, strict=True):
        try:
            outcome = attack_file(
                pretrained, path, written, attack, goal, reader, seed=seed, force=force
            )
        except FileError as err:
            failures.append(err)
            progress(err)
        else:
            done.append(outcome)
            progress(outcome)
    return done, failures
