"""Attack files, write the results, and judge the written files, not the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nip_audio.attacks.base import Attack
from nip_audio.attacks.fakebob import estimate_threshold
from nip_audio.attacks.objectives import Verification
from nip_audio.attacks.registry import attack_entry, make_attack
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Modality, Reader
from nip_audio.errors import AttackError, FileError, OutputError
from nip_audio.models.modalities import MODALITIES
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.workflows.files import AttackGoal, AttackRun, Outcome
from nip_audio.workflows.modalities import workflow_of
from nip_audio.workflows.outputs import claim_outputs, write_sidecar

__all__ = [
    "EstimatedThreshold",
    "attack_file",
    "attack_files",
    "estimate_file_threshold",
    "make_file_attack",
]

_ESTIMATE_EPS = 0.05  # no limit in practice: 200 steps change a sample by at most 0.02
_TRIES = 3


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


@dataclass(frozen=True)
class EstimatedThreshold:
    """An attacker's estimate of the threshold of a verification system.

    Attributes:
        score: Accepted score closely above the threshold.
        queries: Number of inputs that were scored, of all recordings.
        recording: Path of the recording with which it was found.
    """

    score: float
    queries: int
    recording: Path

    def to_json(self) -> dict[str, Any]:
        """Return rounded JSON values."""
        return {
            "score": round(self.score, 6),
            "queries": self.queries,
            "recording": str(self.recording),
        }


def estimate_file_threshold(
    pretrained: PretrainedModel,
    files: Sequence[Path],
    goal: AttackGoal,
    reader: Reader,
    *,
    seed: int = 0,
    steps: int = 200,
) -> EstimatedThreshold:
    """Estimate the threshold of a system as a FAKEBOB attacker does, who sees scores and decisions.

    Of the recordings that are rejected, the three with the highest scores are tried, until one is
    accepted. The threshold is that of the system, so one estimate serves for all files.

    Args:
        pretrained: Model to attack.
        files: Paths of clean recordings.
        goal: Goal of the attacker, with the true threshold; it must be ``accept``.
        reader: Reader of the files.
        seed: Seed of the search directions, combined with the content of a file.
        steps: Largest number of iterations for each recording.

    Raises:
        AttackError: If the goal is another one, or no recording was accepted.
    """
    if goal.goal != "accept":
        raise AttackError(
            f"the goal is {goal.goal}, expected accept, because the threshold is approached from "
            "below; pass `goal=accept`, or leave `estimate_threshold` out"
        )
    workflow = workflow_of(pretrained, reader, seed=seed)
    rejected: list[tuple[float, Path, Any, Verification]] = []
    queries = 0
    for path in files:
        try:
            item = reader.load(path)
        except FileError:  # attack_files reports it
            continue
        objective = goal.objective(pretrained, item.raw, sha256=item.sha256)
        if not isinstance(objective, Verification):
            raise AttackError(
                "the attacker wants to be identified, where nothing is accepted at a threshold; "
                "pass `speaker`, or leave `estimate_threshold` out"
            )
        queries += 1
        score = float(objective.scores(Batch(item.raw[None]))[0])
        if score < objective.threshold:
            rejected.append((score, path, item, objective))
    nearest = sorted(rejected, key=lambda one: one[0], reverse=True)[:_TRIES]
    for _, path, item, objective in nearest:
        found = estimate_threshold(
            objective,
            Batch(item.raw[None]),
            eps=_ESTIMATE_EPS,
            generator=workflow.attack_generator(item),
            steps=steps,
        )
        queries += found.queries
        if found.score is not None:
            return EstimatedThreshold(found.score, queries, path)
    raise AttackError(
        f"the threshold could not be estimated in {queries} queries: of {len(files)} recordings "
        f"{len(rejected)} are rejected, and none of the {len(nearest)} nearest ones was accepted "
        "after small changes, expected at least one; pass more recordings that are rejected"
    )


def attack_file(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    attack: Attack,
    goal: AttackGoal,
    reader: Reader,
    *,
    estimate: EstimatedThreshold | None = None,
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
        estimate: Threshold that the attacker believes in; None knows the true one. The written file
            is judged by the true one.
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
        raise OutputError(f"{out} is the input itself; choose another `out`")
    for output in (out, sidecar):
        if output.exists() and not force:
            raise OutputError(f"{output} exists already; pass `force=True` to overwrite it")
    workflow = workflow_of(pretrained, reader, seed=seed)
    item = reader.load(path)
    objective = believed = goal.objective(pretrained, item.raw, sha256=item.sha256)
    settings = attack.settings()
    if estimate is not None:
        guess = replace(goal, threshold=estimate.score)
        believed = guess.objective(pretrained, item.raw, sha256=item.sha256)
        settings |= {"threshold_estimate": estimate.to_json()}
    result = attack(believed, Batch(item.raw[None]), generator=workflow.attack_generator(item))
    reader.save(result.batch.x[0], out, force=force)
    run = AttackRun(path, out, item, reader.read_back(out), settings, goal, objective, result)
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
    estimate: EstimatedThreshold | None = None,
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
        estimate: Threshold that the attacker believes in; None knows the true one.
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
                *(pretrained, path, written, attack, goal, reader),
                estimate=estimate,
                seed=seed,
                force=force,
            )
        except FileError as err:
            failures.append(err)
            progress(err)
        else:
            done.append(outcome)
            progress(outcome)
    return done, failures
