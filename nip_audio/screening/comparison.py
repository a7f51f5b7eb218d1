"""What the files of a run say about each other: how rare each is, and which are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nip_audio.detectors.backdoor import GroupFinding
from nip_audio.detectors.conformal import q_values
from nip_audio.errors import FileError, InputError
from nip_audio.screening.backdoor import judge_triggers
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.duplicates import find_duplicates
from nip_audio.screening.measured import MeasuredFile, Measurement, TriggerEvidence
from nip_audio.screening.reading import Kind
from nip_audio.screening.sources import Source

__all__ = ["Accusation", "Comparison", "Twin", "compare"]


@dataclass(frozen=True)
class Twin:
    """Another file with the same recording, or picture.

    Attributes:
        id: Of the other file.
        speaker: Whose it is said to be, or what it is said to show.
        correlation: Of the samples or pixels, 1 if they are equal.
    """

    id: str
    speaker: str | None
    correlation: float


@dataclass(frozen=True)
class Accusation:
    """Why a file may carry a backdoor's trigger.

    Attributes:
        finding: What the files look like that the model gives the same name.
        suspicion: Probability of the suspicious side of them.
    """

    finding: GroupFinding
    suspicion: float


@dataclass(frozen=True)
class Comparison:
    """By the id of a file.

    Attributes:
        q_values: Of the files that could be measured.
        twins: Of those that lie under several speakers.
        accused: Of those that may carry a trigger.
        backdoor: What the search for triggers came to, in words; None if none was measured.
    """

    q_values: dict[str, float] = field(default_factory=dict)
    twins: dict[str, tuple[Twin, ...]] = field(default_factory=dict)
    accused: dict[str, Accusation] = field(default_factory=dict)
    backdoor: str | None = None


def compare(
    files: Iterable[MeasuredFile],
    source: Source,
    calibration: Calibration,
    kind: Kind,
) -> Comparison:
    """Compare all files of a run.

    Of each file some two bytes a number of its embedding are kept and little else, so that a run
    may be long; where triggers are looked for, what they are looked for by as well, some 40 bytes a
    neuron.

    Args:
        files: Of the run, in order.
        source: Where they come from, to listen to those that sound alike.
        calibration: For the p-values.
        kind: Of the files.
    """
    ids: list[str] = []
    speakers: list[str | None] = []
    hashes: list[bytes] = []
    p_values: list[float] = []
    # half precision and no copy: what a file costs here is what limits how long a run may be
    embeddings = bytearray()
    triggers: list[TriggerEvidence] = []
    for file in files:
        if file.facts is None or file.measurement is None:
            continue
        ids.append(file.id)
        speakers.append(file.speaker)
        hashes.append(bytes.fromhex(file.facts.content_sha256))
        if isinstance(file.measurement, Measurement):
            embeddings += file.measurement.embedding.astype(np.float16).tobytes()
        if file.trigger is not None:
            triggers.append(file.trigger)
        p_values.append(calibration.tail_p_value(calibration.distance(file.measurement)))
    if not ids:
        return Comparison()

    def read(row: int) -> NDArray[np.float32] | None:
        try:
            raw = kind.read(source.find(ids[row])).raw
        except FileError:
            return None  # it is gone, or was changed: the next run measures it again
        return np.asarray(raw.numpy())

    twins: dict[str, list[Twin]] = {}
    rows = np.frombuffer(embeddings, np.float16).reshape(len(ids), -1)
    for pair in find_duplicates(hashes, rows, speakers, read if kind.likenesses else None):
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            twin = Twin(ids[other], speakers[other], pair.correlation)
            twins.setdefault(ids[one], []).append(twin)
    q = dict(zip(ids, q_values(p_values).tolist(), strict=True))
    accused, backdoor = _accused(ids, triggers) if triggers else ({}, None)
    return Comparison(q, {name: tuple(found) for name, found in twins.items()}, accused, backdoor)


def _accused(
    ids: Sequence[str], triggers: Sequence[TriggerEvidence]
) -> tuple[dict[str, Accusation], str]:
    try:
        judgement = judge_triggers(triggers)
    except InputError as err:
        return {}, f"not judged: {err}"
    findings = {finding.name: finding for finding in judgement.findings if finding.accused}
    found = {}
    for name, evidence, suspicion in zip(ids, triggers, judgement.suspicion.tolist(), strict=True):
        finding = findings.get(evidence.named)
        if finding is not None and suspicion > 0.5:
            found[name] = Accusation(finding, suspicion)
    return found, f"{len(found)} of {len(ids)} files accused" if found else "nothing found"
