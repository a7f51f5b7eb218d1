"""Look for backdoor-poisoned files in a set: measure all files, then judge them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nip_audio.audio.manifest import Recording
from nip_audio.core.modality import Reader
from nip_audio.detectors.backdoor import (
    BackdoorGroups,
    BackdoorJudgement,
    GroupFinding,
    SetEvidence,
)
from nip_audio.errors import FileError, InputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measure import measure_trigger, require_names
from nip_audio.screening.measured import TriggerEvidence
from nip_audio.screening.records import error_of

__all__ = ["BackdoorRecord", "BackdoorReport", "judge_triggers", "look_for_backdoor"]


@dataclass(frozen=True)
class BackdoorRecord:
    """Result of the backdoor search for one file.

    Attributes:
        id: Path below the folder, or the ID in the manifest.
        speaker: Label of the file: its speaker, or what an image shows.
        named: Label that the model predicts; None if the file could not be read.
        accused: Whether the file belongs to the suspicious half of an accused label.
        suspicion: Probability that the file belongs to the suspicious half of its label; 0 if the
            label is not accused, None if the file could not be read.
        change: ‖F(x') − F(x)‖ / ‖F(x)‖ at the first measured layer: the scalar NCCR (neuron
            coverage change rate).
        error: ``code``, ``found`` and ``remedy`` of a file that could not be read, else None.
    """

    id: str
    speaker: str | None
    named: str | None = None
    accused: bool = False
    suspicion: float | None = None
    change: float | None = None
    error: dict[str, str] | None = None

    def to_line(self) -> str:
        """Return one line of ASCII JSON, with numbers rounded to six decimals."""
        values = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return json.dumps(values, ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class BackdoorReport:
    """Result of the backdoor search for a whole set.

    Attributes:
        findings: One finding for each judged label, highest alarm first.
        records: One record for each file, in the order given.
        limit: Score above which a label is accused.
    """

    findings: tuple[GroupFinding, ...]
    records: tuple[BackdoorRecord, ...]
    limit: float

    @property
    def accused(self) -> tuple[BackdoorRecord, ...]:
        """Records of the accused files."""
        return tuple(record for record in self.records if record.accused)

    @property
    def failed(self) -> tuple[BackdoorRecord, ...]:
        """Records of the files that could not be read."""
        return tuple(record for record in self.records if record.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the verdict, the labels, and the ids of accused files."""
        return {
            "verdict": "suspicious" if self.accused else "nothing found",
            "files": len(self.records),
            "accused": [record.id for record in self.accused],
            "failed": [record.id for record in self.failed],
            "limit": self.limit,
            "names": [asdict(finding) for finding in self.findings],
        }


def look_for_backdoor(
    pretrained: PretrainedModel,
    files: Iterable[Recording],
    reader: Reader,
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> BackdoorReport:
    """Search a training or enrolment set for backdoor triggers, with the model trained on it.

    Args:
        pretrained: Suspected model with a classifier; its modality says which taps are used.
        files: Files of the set. A file that cannot be read becomes a record with an error.
        reader: Reads the files.
        seed: Seed of the noise generator; each file's noise depends on the seed and its content.
        progress: Called after each file.

    Raises:
        InputError: If the model has no classifier, or too few labels have enough files.
    """
    require_names(pretrained)
    records: list[BackdoorRecord] = []
    found: list[TriggerEvidence] = []
    judged: list[int] = []
    for file in files:
        try:
            evidence = measure_trigger(pretrained, reader.read(file), seed=seed)
        except FileError as err:
            records.append(BackdoorRecord(file.id, file.speaker, error=error_of(err)))
        else:
            judged.append(len(records))
            found.append(evidence)
            record = BackdoorRecord(file.id, file.speaker, named=evidence.named)
            records.append(replace(record, change=evidence.change))
        progress()
    if len(found) < 2:
        failed = [(record.id, record.error) for record in records if record.error is not None]
        why = "".join(f"; {name}: {e['found']}; {e['remedy']}" for name, e in failed[:1])
        raise InputError(
            f"{len(found)} of {len(records)} files could be judged, expected a whole set of at "
            f"least about a hundred; check the path and the files{why}"
        )
    judgement = judge_triggers(found)
    for place, row in enumerate(judged):
        records[row] = replace(
            records[row],
            accused=bool(judgement.accused[place]),
            suspicion=float(judgement.suspicion[place]),
        )
    return BackdoorReport(judgement.findings, tuple(records), judgement.limit)


def judge_triggers(evidence: Sequence[TriggerEvidence]) -> BackdoorJudgement:
    """Judge all files of a set together.

    Raises:
        InputError: If too few labels have enough files.
    """
    known = SetEvidence(
        predictions=np.array([e.named for e in evidence]),
        second_predictions=np.array([e.second for e in evidence]),
        margins=np.array([e.lead for e in evidence]),
        changes=np.stack([e.neurons for e in evidence]),
        outputs=np.stack([e.outputs for e in evidence]),
    )
    return BackdoorGroups().judge(known)
