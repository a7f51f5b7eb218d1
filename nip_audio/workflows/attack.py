"""Attack one recording, write it as 16-bit audio, and judge the written file, not the tensor."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nip_audio.attacks.base import Attack
from nip_audio.attacks.objectives import Identification, Objective, Verification
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import Audio, ReadSettings, read_audio, write_audio
from nip_audio.core.adapter import Batch
from nip_audio.core.state import write_atomic
from nip_audio.errors import AttackError, EnrolmentError, OutputError
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.pretrained import PretrainedModel

__all__ = ["AttackGoal", "AttackedFile", "FileGoal", "attack_file", "read_back"]

FileGoal = Literal["accept", "reject", "misidentify"]


@dataclass(frozen=True)
class AttackGoal:
    """What the attacker of a file wants.

    Exactly one of four: to be identified as ``target``; by ``misidentify``, as anybody else than
    now; with ``speaker``, to be accepted as or rejected from that enrolled voice; with none of
    these, no longer to be verified against the unattacked recording itself, from whose maximum of
    the cosine an attack first takes a small random step.

    Attributes:
        threshold: Cosine from which the system accepts; needed where something is verified.
        goal: ``accept``, ``reject`` or ``misidentify``.
        enrolment: Enrolled voices.
        speaker: Enrolled speaker.
        target: Label of the closed set.
    """

    threshold: float | None
    goal: FileGoal = "reject"
    enrolment: Enrolment | None = None
    speaker: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if (self.enrolment is None) != (self.speaker is None):
            raise EnrolmentError("--enrolment and --speaker belong together; pass both or neither")
        if self.target is not None and self.speaker is not None:
            raise AttackError("a target label and an enrolled speaker exclude each other; pass one")
        if self.goal == "misidentify" and (self.target, self.speaker) != (None, None):
            raise AttackError(
                "to be named as anybody else leaves no choice of whom; pass --goal misidentify, or "
                "--target or --speaker"
            )
        if self.goal == "accept" and self.speaker is None:
            raise AttackError("to be accepted needs a voice: pass --enrolment and --speaker")

    def objective(self, pretrained: PretrainedModel, samples: Tensor) -> Objective:
        """Return the decision to attack, for one recording."""
        model = pretrained.model
        if self.target is not None:
            labels = pretrained.card.labels
            if self.target not in labels:
                raise AttackError(
                    f"{self.target!r} is none of the {len(labels)} speakers of "
                    f"{pretrained.card.name}"
                )
            label = torch.tensor([labels.index(self.target)])
            return Identification(model, label, targeted=True)
        if self.goal == "misidentify":
            return Identification(model, model.predict(Batch(samples[None])))
        if self.threshold is None:
            raise AttackError("verification needs a threshold; pass --threshold")
        if self.enrolment is not None and self.speaker is not None:
            voice = self.enrolment.voice(self.speaker)
        else:
            with torch.no_grad():
                voice = model.embed(Batch(samples[None]))[0]
        return Verification(
            model,
            voice[None],
            threshold=self.threshold,
            goal=self.goal,
            self_reference=self.speaker is None,
        )


@dataclass(frozen=True)
class AttackedFile:
    """One attacked recording, as its JSON sidecar has it.

    Attributes:
        source: Recording that was attacked.
        written: The 16-bit file.
        written_sha256: Of its bytes.
        attack: Name and settings.
        aim: Goal in words.
        threshold: Cosine of the system's decision; None for a target label.
        score_before: Cosine, or the target's score, of the recording.
        score_after: The same of the *written file*.
        succeeded_before: Whether the recording already did what the attacker wants.
        fools: Whether the *written file* does, and the recording did not.
        linf: Largest change in the written file.
        snr_db: Signal to perturbation ratio in the written file.
        queries: Inputs scored.
        gradients: Inputs differentiated.
        seed: Of the random start.
        model_id: Attacked model.
    """

    source: str
    written: str
    written_sha256: str
    attack: dict[str, Any]
    aim: str
    threshold: float | None
    score_before: float
    score_after: float
    succeeded_before: bool
    fools: bool
    linf: float
    snr_db: float
    queries: float
    gradients: float
    seed: int
    model_id: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def attack_file(
    pretrained: PretrainedModel,
    path: Path,
    out: Path,
    attack: Attack,
    goal: AttackGoal,
    adapter: WaveformAdapter,
    *,
    seed: int = 0,
    force: bool = False,
) -> AttackedFile:
    """Attack one file; write ``out`` (wav or flac) and ``out`` + ``.json``.

    Args:
        pretrained: Attacked model.
        path: Clean recording.
        out: File to write.
        attack: Which.
        goal: What for.
        adapter: How ``path`` is read.
        seed: With the content, seeds the random start.
        force: Overwrite.

    Raises:
        AudioError: If ``path`` cannot be used.
        AttackError: If the attack cannot apply.
        OutputError: If an output exists already, or ``out`` is the recording itself.
    """
    sidecar = out.with_name(out.name + ".json")
    if out.exists() and path.resolve() == out.resolve():
        raise OutputError(f"{out} is the recording itself; choose another --out")
    for target in (out, sidecar):
        if target.exists() and not force:
            raise OutputError(f"{target} exists already; pass --force to overwrite it")
    audio = adapter.load(path)
    objective = goal.objective(pretrained, audio.samples)
    batch = Batch(audio.samples[None], None, (path.name,))
    mixed = hashlib.sha256(f"{seed}:{audio.sha256}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:7], "big"))
    result = attack(objective, batch, generator=generator)
    write_audio(out, result.batch.x[0], audio.sample_rate_hz, force=force)
    written = read_back(out, adapter.settings)
    delta = written.samples - audio.samples
    before, after = bool(objective.succeeded(batch)[0]), _succeeds(objective, written)
    outcome = AttackedFile(
        source=str(path),
        written=str(out),
        written_sha256=written.sha256,
        attack=attack.settings(),
        aim=_aim(goal),
        threshold=goal.threshold if isinstance(objective, Verification) else None,
        score_before=_score(objective, audio.samples),
        score_after=_score(objective, written.samples),
        succeeded_before=before,
        fools=after and not before,
        linf=float(delta.abs().max()),
        snr_db=float(20 * torch.log10(audio.samples.norm() / delta.norm().clamp_min(1e-12))),
        queries=result.queries,
        gradients=result.gradients,
        seed=seed,
        model_id=pretrained.model_id,
    )
    text = json.dumps(outcome.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomic(sidecar, text.encode(), force=force)
    return outcome


def read_back(path: Path, settings: ReadSettings) -> Audio:
    """Read a written adversarial file whatever its length and level."""
    permissive = replace(settings, min_duration_s=1e-4, min_rms=1e-9, max_clipped_share=1.0)
    return read_audio(path, permissive)


def _succeeds(objective: Objective, audio: Audio) -> bool:
    return bool(objective.succeeded(Batch(audio.samples[None]))[0])


@torch.no_grad()
def _score(objective: Objective, samples: Tensor) -> float:
    batch = Batch(samples[None])
    if isinstance(objective, Verification):
        return float(objective.scores(batch)[0])
    return float(objective.logits(batch)[0, int(objective.label[0])])


def _aim(goal: AttackGoal) -> str:
    if goal.target is not None:
        return f"identified as {goal.target}"
    if goal.goal == "misidentify":
        return "identified as anybody else"
    if goal.speaker is not None:
        return f"{'accepted as' if goal.goal == 'accept' else 'rejected from'} {goal.speaker}"
    return "no longer verified against the recording itself"
