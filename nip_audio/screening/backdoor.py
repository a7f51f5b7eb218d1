"""Look for poisoned files in a folder: measure all, then judge them together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nip_audio.audio.manifest import Recording
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
from nip_audio.screening.reading import Reader
from nip_audio.screening.records import error_of

__all__ = ["BackdoorRecord", "BackdoorReport", "judge_triggers", "look_for_backdoor"]


@dataclass(frozen=True)
class BackdoorRecord:
    """Result for one file.

    Attributes:
        id: Path below the folder, or the manifest's ID.
        speaker: Whose voice it is said to be, or what a picture is said to show.
        named: Whom or what the model names; None if the file could not be read.
        accused: Whether it is on the suspicious side of an accused name.
        suspicion: Probability of the suspicious side of an accused name; 0 where the name is not
            accused. None if the file could not be read.
        change: ‖F(x') − F(x)‖ / ‖F(x)‖ at the first layer looked at: the scalar NCCR.
        error: ``code``, ``found`` and ``remedy`` of a file that could not be read.
    """

    id: str
    speaker: str | None
    named: str | None = None
    accused: bool = False
    suspicion: float | None = None
    change: float | None = None
    error: dict[str, str] | None = None

    def to_line(self) -> str:
        """Return one line of JSON, numbers rounded to six decimals."""
        values = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return json.dumps(values, ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class BackdoorReport:
    """What a set looks like.

    Attributes:
        findings: One a judged name, highest alarm first.
        records: One a file, in the order given.
        limit: Score above which a name is accused.
    """

    findings: tuple[GroupFinding, ...]
    records: tuple[BackdoorRecord, ...]
    limit: float

    @property
    def accused(self) -> tuple[BackdoorRecord, ...]:
        """Files that are accused."""
        return tuple(record for record in self.records if record.accused)

    @property
    def failed(self) -> tuple[BackdoorRecord, ...]:
        """Files that could not be read."""
        return tuple(record for record in self.records if record.error is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the verdict, without the files that are not accused."""
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
    """Judge a training or enrolment set by the model that was, or may have been, trained on it.

    Args:
        pretrained: The suspected model, with a head; ``TRIGGER_PLANS`` says which taps are used.
        files: The set. Those that cannot be read are records, not the end.
        reader: How they are read.
        seed: Of the noise; each file's noise comes from the seed and its content.
        progress: Called after each file.

    Raises:
        InputError: If the model names nobody, or too few names have enough files.
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
            f"{len(found)} of {len(records)} files can be judged, expected a whole set of at "
            f"least some hundred; check the path and the files{why}"
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
        InputError: If too few names have enough files.
    """
    known = SetEvidence(
        predictions=np.array([e.named for e in evidence]),
        second_predictions=np.array([e.second for e in evidence]),
        margins=np.array([e.lead for e in evidence]),
        changes=np.stack([e.neurons for e in evidence]),
        outputs=np.stack([e.outputs for e in evidence]),
    )
    return BackdoorGroups().judge(known)
