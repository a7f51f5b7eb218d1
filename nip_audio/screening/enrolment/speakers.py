"""Judge whether a speaker can be enrolled: cohesion, another speaker's voice, and a decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nip_audio.core.metrics import Interval, bootstrap
from nip_audio.errors import InputError
from nip_audio.models.log_ratios import LogRatios
from nip_audio.screening.enrolment.limits import SpeakerLimits
from nip_audio.screening.records import Decision, ScreenRecord, SpeakerGate

__all__ = [
    "Nearest",
    "Voices",
    "cohesion",
    "decide",
    "is_mostly_bad",
    "is_usable",
    "nearest_voices",
    "unmet_of",
]

Array = NDArray[np.float64]

_ATTACKED = ("adversarial", "poisoned")
_NAMED = 3
_ROUNDS = 1000
_ROWS = 1024
_EVEN = 0.5


def cohesion(embeddings: Array, *, seed: int = 0) -> tuple[float | None, Interval | None]:
    """Return the mean cosine of the pairs of a speaker's recordings, and its 95 % interval.

    Args:
        embeddings: (n, D) embeddings of unit length.
        seed: Seed of the bootstrap, which draws recordings; a recording is not paired with itself.

    Returns:
        The mean, None for fewer than two recordings; and the interval, None for fewer than three.

    Example:
        >>> cohesion(np.eye(2))[0]
        0.0
    """
    n = len(embeddings)
    if n < 2:
        return None, None
    cosines = np.clip(embeddings @ embeddings.T, -1.0, 1.0)

    def mean(rows: NDArray[np.intp]) -> float:
        apart = rows[:, None] != rows[None, :]
        if not apart.any():
            raise InputError("one recording was drawn only, expected two; draw again")
        return float(cosines[np.ix_(rows, rows)][apart].mean())

    value = mean(np.arange(n))
    return value, None if n < 3 else bootstrap(mean, n, seed=seed, rounds=_ROUNDS)


@dataclass(frozen=True)
class Nearest:
    """The other speaker of a run who sounds most like one.

    Attributes:
        speaker: Name of the other speaker.
        cosine: Mean cosine between the recordings of the two.
        same: Probability that the two are one voice; None if it is not evaluated.
    """

    speaker: str
    cosine: float
    same: float | None


class Voices:
    """Sums the embeddings of usable recordings by speaker, so that a run may be long."""

    def __init__(self) -> None:
        """Start without speakers."""
        self._sums: dict[str, Array] = {}
        self._counts: dict[str, int] = {}

    def add(self, speaker: str, embedding: Array) -> None:
        """Add a recording of a speaker; the embedding has unit length."""
        self._sums[speaker] = self._sums.get(speaker, np.zeros(len(embedding))) + embedding
        self._counts[speaker] = self._counts.get(speaker, 0) + 1

    def means(self) -> tuple[list[str], Array]:
        """Return the names of the speakers, and (S, D) the mean of each one's embeddings."""
        names = list(self._sums)
        return names, np.array([self._sums[name] / self._counts[name] for name in names])


def nearest_voices(voices: Voices, ratios: LogRatios | None) -> dict[str, Nearest]:
    """Return for each speaker the other one who sounds most like them.

    Args:
        voices: Voices of the speakers of a run.
        ratios: Ratios of one voice to two for mean cosines; None if they are not known.
    """
    names, means = voices.means()
    if len(names) < 2:
        return {}
    found = {}
    for start in range(0, len(names), _ROWS):
        cosines = means[start : start + _ROWS] @ means.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        best = cosines.argmax(axis=1)
        for row, other, cosine in zip(rows, best, cosines[rows, best].tolist(), strict=True):
            same = None if ratios is None else ratios.probability(cosine, prior=_EVEN)
            found[names[start + row]] = Nearest(names[other], cosine, same)
    return found


def is_mostly_bad(records: Sequence[ScreenRecord]) -> bool:
    """Tell whether more than half of a speaker's recordings fail the gate or cannot be read."""
    bad = sum(record.verdict == "error" or bool(unmet_of(record)) for record in records)
    return 2 * bad > len(records)


def is_usable(record: ScreenRecord) -> bool:
    """Tell whether a recording can be enrolled: nothing was found in it, and it fails no limit."""
    return not record.flagged and not record.failed and not unmet_of(record)


def decide(
    records: Sequence[ScreenRecord],
    embeddings: Mapping[str, Array],
    nearest: Nearest | None,
    limits: SpeakerLimits,
    verification_threshold: float | None,
) -> SpeakerGate:
    """Decide whether a speaker can be enrolled.

    ``reject``: nothing can be used, or most recordings look attacked. ``ask``: a person must find
    out who speaks. ``record more``: too few recordings, or too little speech. ``enrol``: the usable
    recordings can be enrolled.

    Args:
        records: Records of the speaker's recordings.
        embeddings: Embedding of unit length of each recording that could be measured, by id.
        nearest: Other speaker who sounds most like this one; None if there is none.
        limits: Limits of a speaker.
        verification_threshold: Cosine from which two recordings count as one voice; None if the
            calibration has none.
    """
    usable = [record for record in records if is_usable(record)]
    speech_s = sum(getattr(record.details, "speech_s", None) or 0.0 for record in usable)
    rows = [embeddings[record.id] for record in usable]
    value, interval = cohesion(np.stack(rows)) if rows else (None, None)
    decision, why = _decision(
        records, usable, speech_s, value, nearest, limits, limits.cohesion(verification_threshold)
    )
    return SpeakerGate(
        recordings=len(usable),
        speech_s=round(speech_s, 6),
        cohesion=None if value is None else round(value, 6),
        cohesion_low=None if interval is None else round(interval.low, 6),
        cohesion_high=None if interval is None else round(interval.high, 6),
        nearest=None if nearest is None else nearest.speaker,
        nearest_cosine=None if nearest is None else round(nearest.cosine, 6),
        nearest_same=None if nearest is None or nearest.same is None else round(nearest.same, 6),
        decision=decision,
        why=why,
    )


def _decision(
    records: Sequence[ScreenRecord],
    usable: Sequence[ScreenRecord],
    speech_s: float,
    value: float | None,
    nearest: Nearest | None,
    limits: SpeakerLimits,
    least_cohesion: float | None,
) -> tuple[Decision, str]:
    found = _doubt(records) or _same_voice(nearest, limits)
    if found is None and not usable:
        found = "reject", "no recording can be used: record again what each finding asks for"
    if found is None and None not in (value, least_cohesion) and value < least_cohesion:  # type: ignore[operator]
        found = (
            "ask",
            (
                f"the usable recordings agree little (mean cosine similarity {value:.2f}, expected "
                f"at least {least_cohesion:.2f}), and none stands out: listen to all of them"
            ),
        )
    decision, why = found or _enough(len(records), len(usable), speech_s, limits)
    return decision, f"{_badness(records)}{why}"


def _doubt(records: Sequence[ScreenRecord]) -> tuple[Decision, str] | None:
    """Return what to do where it is in doubt who speaks; None if it is not."""
    attacked = [record for record in records if record.verdict in _ATTACKED]
    doubted = [record for record in records if _is_doubted(record)]
    if 2 * len(attacked) > len(records):
        return "reject", f"most recordings look attacked ({_names(attacked)})"
    if attacked:
        return "ask", f"{_names(attacked)} looks attacked: find out where it came from"
    if 2 * len(doubted) > len(records):
        return "ask", (
            f"{len(doubted)} of {len(records)} recordings do not sound like one voice, so it is "
            "not possible to tell which are right: listen to all of them"
        )
    if doubted:
        return "ask", f"{_names(doubted)} may be somebody else: listen, and ask who spoke"
    twice = [record for record in records if record.verdict == "duplicate"]
    if twice:
        return "ask", f"{_names(twice)} is filed under another speaker, too: find out whose it is"
    return None


def _same_voice(nearest: Nearest | None, limits: SpeakerLimits) -> tuple[Decision, str] | None:
    if nearest is None or nearest.same is None or nearest.same <= limits.most_same_voice:
        return None
    return "ask", (
        f"speaker {nearest.speaker} may be the same voice (probability {nearest.same:.2f} at even "
        f"odds, cosine similarity {nearest.cosine:.2f}): find out whether one person has two names"
    )


def _enough(
    files: int, usable: int, speech_s: float, limits: SpeakerLimits
) -> tuple[Decision, str]:
    lacks = []
    if usable < limits.least_recordings:
        lacks.append(f"{usable} usable recordings, at least {limits.least_recordings}")
    if speech_s < limits.least_speech_s:
        lacks.append(f"{speech_s:.1f} s of speech in all, at least {limits.least_speech_s:g} s")
    if lacks:
        return "record more", f"{' and '.join(lacks)} are needed"
    left = f"; leave out the other {files - usable}" if files > usable else ""
    return "enrol", f"{usable} usable recordings, {speech_s:.1f} s of speech{left}"


def _badness(records: Sequence[ScreenRecord]) -> str:
    """Say that most recordings of a speaker are bad, if they are."""
    if not is_mostly_bad(records):
        return ""
    failing = [record for record in records if record.verdict == "error" or unmet_of(record)]
    return (
        f"most recordings are bad ({len(failing)} of {len(records)}; {_most_common(failing)}), so "
        "the others have little to be compared with; "
    )


def _is_doubted(record: ScreenRecord) -> bool:
    """Tell whether it is in doubt who speaks in a recording."""
    found = any(finding.risk == "inconsistent" for finding in record.findings)
    return found or "least_part_cosine" in unmet_of(record)


def unmet_of(record: ScreenRecord) -> tuple[str, ...]:
    """Return the limits of the gate that a recording does not keep; none if it was not asked."""
    return getattr(record.details, "unmet", None) or ()


def _most_common(records: Iterable[ScreenRecord]) -> str:
    """Return the reason that most bad recordings share, if any two do."""
    reasons = [
        reason
        for record in records
        for reason in (unmet_of(record) if record.error is None else (record.error["code"],))
    ]
    names = sorted(set(reasons), key=lambda one: (-reasons.count(one), one))
    if reasons.count(names[0]) == 1 < len(reasons):
        return "for different reasons"
    return f"{reasons.count(names[0])} {names[0]}"


def _names(records: Sequence[ScreenRecord]) -> str:
    shown = ", ".join(record.id for record in records[:_NAMED])
    more = len(records) - _NAMED
    return shown + (f" and {more} more" if more > 0 else "")
