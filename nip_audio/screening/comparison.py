"""Compare all files of a run: q-values, duplicates and suspected backdoor triggers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nip_audio.detectors.conformal import q_values
from nip_audio.errors import FileError, InputError
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.duplicates import find_duplicates
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.enrolment.speakers import Nearest, Voices
from nip_audio.screening.kind import Kind
from nip_audio.screening.measured import MeasuredFile, TriggerEvidence
from nip_audio.screening.sources import Source

if TYPE_CHECKING:
    from nip_audio.detectors.backdoor import GroupFinding

__all__ = ["Comparison", "DuplicateFile", "TriggerSuspicion", "compare"]


@dataclass(frozen=True)
class DuplicateFile:
    """Another file that holds the same recording, or the same image.

    Attributes:
        id: Id of the other file.
        speaker: Speaker of the other file, or the folder of an image; None if it has none.
        correlation: Correlation of the samples or pixels, 1 if they are equal.
    """

    id: str
    speaker: str | None
    correlation: float


@dataclass(frozen=True)
class TriggerSuspicion:
    """Reason to suspect that a file carries a backdoor trigger.

    Attributes:
        finding: Finding about all files with the same predicted label.
        suspicion: Probability that the file belongs to the suspicious half of them.
    """

    finding: GroupFinding
    suspicion: float


@dataclass(frozen=True)
class Comparison:
    """Result of comparing the files of a run; each mapping is keyed by the id of a file.

    Attributes:
        q_values: q-value of each file that could be measured.
        duplicates: Duplicates of each file that is filed under several speakers.
        suspicions: Suspicion against each file that may carry a trigger.
        backdoor: Result of the search for triggers in words; None if it was not made.
        nearest: For each speaker the other one who sounds most like them; empty without a gate.
    """

    q_values: dict[str, float] = field(default_factory=dict)
    duplicates: dict[str, tuple[DuplicateFile, ...]] = field(default_factory=dict)
    suspicions: dict[str, TriggerSuspicion] = field(default_factory=dict)
    backdoor: str | None = None
    nearest: dict[str, Nearest] = field(default_factory=dict)


def compare(
    files: Iterable[MeasuredFile],
    source: Source,
    calibration: Calibration,
    kind: Kind,
    gate: EnrolmentGate | None = None,
) -> Comparison:
    """Compare all files of a run with each other.

    Little is kept in memory, so that a run may be long: two bytes for each number of a file's
    embedding, about 1,000 for each second of its fingerprint and, if triggers are searched for,
    about 40 bytes per neuron.

    Args:
        files: Measured files, in the order of the run.
        source: Source of the files, from which similar ones are read again.
        calibration: Calibration that gives the p-values.
        kind: Modality of the files.
        gate: Enrolment gate that compares the voices of speakers; None compares none.
    """
    ids: list[str] = []
    speakers: list[str | None] = []
    hashes: list[bytes] = []
    p_values: list[float] = []
    fingerprints: list[NDArray[np.uint32]] = []
    # half precision and no copies: the memory per file limits the length of a run
    embeddings = bytearray()
    triggers: list[TriggerEvidence] = []
    voices = Voices()
    for file in files:
        if file.facts is None or file.measurement is None:
            continue
        ids.append(file.id)
        speakers.append(file.speaker)
        hashes.append(bytes.fromhex(file.facts.content_sha256))
        embeddings += file.measurement.embedding.astype(np.float16).tobytes()
        if gate is not None:
            gate.listen(voices, file, calibration)
        fingerprints.append(file.measurement.codes.astype(np.uint32))
        if file.trigger is not None:
            triggers.append(file.trigger)
        detector = calibration.detector
        place = kind.place(file.facts, file.measurement, calibration)
        distance = detector.distance(file.measurement)
        p_values.append(detector.tail_p_value(distance, place) if kind.hears(file.facts) else 1.0)
    if not ids:
        return Comparison()

    def read(row: int) -> NDArray[np.floating] | None:
        try:
            return kind.compared(kind.reader.read(source.find(ids[row])))
        except FileError:
            return None  # the file is gone or was changed; the next run measures it again

    duplicates: dict[str, list[DuplicateFile]] = {}
    rows = np.frombuffer(embeddings, np.float16).reshape(len(ids), -1)
    reading = read if kind.finds_altered_copies else None
    for pair in find_duplicates(hashes, fingerprints, rows, speakers, reading):
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            duplicate = DuplicateFile(ids[other], speakers[other], pair.correlation)
            duplicates.setdefault(ids[one], []).append(duplicate)
    q = dict(zip(ids, q_values(p_values).tolist(), strict=True))
    suspicions, backdoor = _suspicions(ids, triggers) if triggers else ({}, None)
    return Comparison(
        q,
        {name: tuple(found) for name, found in duplicates.items()},
        suspicions,
        backdoor,
        {} if gate is None else gate.compare_speakers(voices, calibration),
    )


def _suspicions(
    ids: Sequence[str], triggers: Sequence[TriggerEvidence]
) -> tuple[dict[str, TriggerSuspicion], str]:
    try:
        from nip_audio.screening.backdoor import judge_triggers  # needs scikit-learn

        judgement = judge_triggers(triggers)
    except InputError as err:
        return {}, f"not judged: {err}"
    findings = {finding.name: finding for finding in judgement.findings if finding.accused}
    found = {}
    for name, evidence, suspicion in zip(ids, triggers, judgement.suspicion.tolist(), strict=True):
        finding = findings.get(evidence.named)
        if finding is not None and suspicion > 0.5:
            found[name] = TriggerSuspicion(finding, suspicion)
    return found, f"{len(found)} of {len(ids)} files accused" if found else "nothing found"
