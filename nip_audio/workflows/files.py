"""Define what attacks and purifiers ask of a modality, and what they are told about a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from nip_audio.attacks.base import AttackResult
from nip_audio.attacks.enrolment import EnrolmentSide
from nip_audio.attacks.objectives import Goal, Identification, Objective, Verification
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import FileContent
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.seeds import generator_of
from nip_audio.errors import AttackError, EnrolmentError
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.identification import identify
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.purifiers.base import Purifier
from nip_audio.screening.judge import Judge
from nip_audio.screening.measure import FileMeasurer, noise_generator
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.records import Verdict

__all__ = [
    "Assessment",
    "AttackGoal",
    "AttackRun",
    "FileGoal",
    "Outcome",
    "PlannedFile",
    "Probe",
    "Purified",
    "Workflow",
    "rounded",
]

FileGoal = Literal["accept", "reject", "misidentify"]


@dataclass(frozen=True)
class Probe:
    """A recording that is verified later, in an attack on enrolment.

    Attributes:
        path: Path of the recording.
        raw: (N,) samples in [-1, 1], at the sample rate of the model.
    """

    path: Path
    raw: Tensor


@dataclass(frozen=True)
class AttackGoal:
    """What the attacker of a file wants.

    Exactly one of five: to be identified as ``target``; by ``misidentify``, as anybody else than
    now; with ``speaker``, to be accepted as or rejected from that enrolled voice; with ``probe``,
    that the probe is accepted as or rejected from the voice that is enrolled from the attacked
    file; with none of these, no longer to be verified against the unattacked recording itself, from
    whose maximum of the cosine an attack first takes a small random step.

    Attributes:
        threshold: Cosine from which the system accepts; needed where something is verified.
        goal: ``accept``, ``reject`` or ``misidentify``.
        enrolment: Enrolled voices.
        speaker: Enrolled speaker. With a probe, the attacked file is enrolled together with the
            other recordings of this speaker; if it is one of them, it is replaced.
        target: Label of the closed set.
        probe: Recording that is verified later; None attacks the recording that is verified.
    """

    threshold: float | None
    goal: FileGoal = "reject"
    enrolment: Enrolment | None = None
    speaker: str | None = None
    target: str | None = None
    probe: Probe | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.probe is not None and (self.target is not None or self.goal == "misidentify"):
            raise AttackError(
                "a probe is verified, not identified, so it excludes a target label and the goal "
                "misidentify; pass the `goal` accept or reject with `probe`"
            )
        if (self.enrolment is None) != (self.speaker is None):
            raise EnrolmentError("`enrolment` and `speaker` belong together; pass both or neither")
        if self.target is not None and self.speaker is not None:
            raise AttackError("a target label and an enrolled speaker exclude each other; pass one")
        if self.goal == "misidentify" and (self.target, self.speaker) != (None, None):
            raise AttackError(
                "to be named as anybody else leaves no choice of whom; pass `goal=misidentify`, or "
                "`target` or `speaker`"
            )
        if self.goal == "accept" and self.speaker is None and self.probe is None:
            raise AttackError(
                "to be accepted needs a voice: pass `enrolment` and `speaker`, or `probe` to "
                "attack enrolment"
            )

    def objective(
        self, pretrained: PretrainedModel, raw: Tensor, *, sha256: str | None = None
    ) -> Objective:
        """Return the decision to attack, for the raw input of one file.

        Args:
            pretrained: Model to attack.
            raw: Raw input of the file.
            sha256: SHA-256 of the file's bytes, by which it is recognised in an enrolment; needed
                for attacks on enrolment only.

        Raises:
            AttackError: If the target is no label of the model, or a threshold is missing.
            EnrolmentError: If the speaker is not enrolled.
        """
        model = pretrained.model
        if self.target is not None:
            labels = pretrained.card.labels
            if self.target not in labels:
                raise AttackError(
                    f"{self.target!r} is none of the {len(labels)} labels of "
                    f"{pretrained.card.name}, expected one such as {', '.join(labels[:3])}; choose "
                    "a label of the model"
                )
            label = torch.tensor([labels.index(self.target)])
            return Identification(model, label, targeted=True)
        if self.goal == "misidentify":
            return Identification(model, model.predict(Batch(raw[None])))
        if self.threshold is None:
            raise AttackError("verification needs a threshold; pass `threshold`")
        if self.probe is not None:
            return self._enrolment_side(model, self.probe, self.threshold, sha256)
        if self.enrolment is not None and self.speaker is not None:
            voice = self.enrolment.voice(self.speaker)
        else:
            with torch.no_grad():
                voice = model.embed(Batch(raw[None]))[0]
        return Verification(
            model,
            voice[None],
            threshold=self.threshold,
            goal=self.goal,
            self_reference=self.speaker is None,
        )

    def _enrolment_side(
        self, model: InstrumentedModel, probe: Probe, threshold: float, sha256: str | None
    ) -> EnrolmentSide:
        others = None
        if self.enrolment is not None and self.speaker is not None:
            rows = self.enrolment.embeddings_of(self.speaker)
            kept = [i for i, h in enumerate(self.enrolment.files[self.speaker]) if h != sha256]
            others = rows[kept][None] if kept else None
        with torch.no_grad():
            heard = model.embed(Batch(probe.raw[None]))
        goal: Goal = "accept" if self.goal == "accept" else "reject"
        return EnrolmentSide(model, heard, threshold=threshold, goal=goal, others=others)


@dataclass(frozen=True)
class PlannedFile:
    """A file to purify, and the paths of its outputs.

    Attributes:
        source: Path of the file, as in ``Recording``.
        written: Path of the file to write.
        plot: Whether a plot is drawn, too.
    """

    source: Path | str
    written: Path
    plot: bool = False

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar beside the written file."""
        return self.written.with_suffix(".json")

    @property
    def plot_path(self) -> Path:
        """Path of the plot beside the written file, a PNG."""
        return self.written.with_suffix(".png")

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Paths of all files to write."""
        return (self.written, self.sidecar, *([self.plot_path] if self.plot else []))


@dataclass(frozen=True)
class AttackRun:
    """An attack on one file, before it is described.

    Attributes:
        source: Path of the file that was attacked.
        out: Path of the file that was written.
        item: Content of the attacked file.
        written: Content of the written file.
        attack: Name and settings of the attack.
        goal: Goal of the attacker.
        objective: Decision that was attacked.
        result: Result of the attack.
    """

    source: Path
    out: Path
    item: Any
    written: Any
    attack: dict[str, Any]
    goal: AttackGoal
    objective: Objective
    result: AttackResult


class Outcome(Protocol):
    """What became of one file, as described in its JSON sidecar."""

    @property
    def line(self) -> str:
        """Outcome in one line of text."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the content of the sidecar as plain JSON values."""
        ...


@dataclass(frozen=True)
class Assessment:
    """Prediction of a model, and verdict of its detector, for one file.

    Attributes:
        label: Predicted label, such as a speaker; None if the model has no classifier.
        score: Score of the predicted label: a logit or a cosine.
        posterior: Softmax probability of the predicted label over all labels.
        verdict: Verdict of the detector; None without a calibration.
        distance: Distance from clean files as measured by the detector.
        distance_threshold: Distance above which the detector flags a file.
    """

    label: str | None = None
    score: float | None = None
    posterior: float | None = None
    verdict: Verdict | None = None
    distance: float | None = None
    distance_threshold: float | None = None


@dataclass(frozen=True)
class Purified:
    """Output of a purifier for one file.

    Attributes:
        raw: Raw values to write, (*S).
        asked: (F, T) spectrogram that the purifier requested; None for a purifier of raw input.
        rounds: Number of corrections in the resynthesis from the spectrogram; None for a purifier
            of raw input.
    """

    raw: Tensor
    asked: Tensor | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class Workflow(ABC):
    """What attacks and purifiers do with the files of one modality.

    Attributes:
        pretrained: Model that is attacked or defended.
        reader: Reader of the files.
        seed: Seed of everything random, combined with the content of a file, so that neither order
            nor name affects the result. Anyone who knows the seed can compute the draws of a random
            purifier.
        judge: Detector that judges files; None skips the verdicts.
    """

    start_bits: ClassVar[int]

    pretrained: PretrainedModel
    reader: Any
    seed: int = 0
    judge: Judge | None = None

    def attack_generator(self, item: FileContent) -> torch.Generator:
        """Return the generator of an attack's random start; it depends on the content."""
        return generator_of(self.seed, item.noise_key, bits=self.start_bits)

    @abstractmethod
    def attacked(self, run: AttackRun) -> Outcome:
        """Describe an attack by its written file."""

    @torch.no_grad()
    def assess(self, item: FileContent) -> Assessment:
        """Predict the label of a file, and judge it if there is a detector."""
        found = Assessment()
        if self.pretrained.model.head is not None:
            (best,) = identify(self.pretrained, item.raw, top=1)
            found = Assessment(best.speaker, best.score, best.posterior)
        if self.judge is None:
            return found
        probe = self.judge.calibration.detector.probe
        measurer = FileMeasurer(self.pretrained, probe, kind_of(self.reader), self.seed)
        record = self.judge.judge(measurer.measure_item(item))
        return replace(
            found,
            verdict=record.verdict,
            distance=record.distance,
            distance_threshold=record.distance_threshold,
        )

    @torch.no_grad()
    def make(self, purifier: Purifier, item: FileContent) -> Purified:
        """Purify one file without assessing it, and without its label or clean original."""
        generator = noise_generator(self.seed, item.content_sha256)
        return Purified(purifier.purify(Batch(item.raw[None]), generator=generator).x[0])

    @abstractmethod
    def purified(
        self,
        settings: Mapping[str, Any],
        planned: PlannedFile,
        item: Any,
        before: Assessment,
        made: Purified,
    ) -> Outcome:
        """Describe a purified file by its written file.

        Args:
            settings: Settings of the purifier.
            planned: Paths of the file and of its outputs.
            item: Content of the original.
            before: Prediction and verdict for the original.
            made: Output of the purifier, or the original where it is not purified.
        """

    @abstractmethod
    def plot(self, done: Any, *, force: bool = False) -> None:
        """Draw a purified file."""


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain JSON values with numbers rounded to 6 digits."""
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
