"""Tell which findings of a run still need a person: those that are new, and not accepted before.

A person who has listened to a file may accept what was found in it. An acceptance holds for one
content (its SHA-256) in one place (the id of its record) and for the findings it names. It has a
reason and a last day, and stands in a TOML file::

    [[accepted]]
    id = "alice/a1.flac"
    sha256 = "9f86d0…"
    verdicts = ["inconsistent"]
    reason = "Alice had a cold; listened to by Bo"
    until = 2027-03-31
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nip_audio.core.files import LARGEST_JSON, UnfitFileError, read_regular
from nip_audio.core.near import suggest_names
from nip_audio.core.state import write_atomic
from nip_audio.core.strict_json import load_json
from nip_audio.errors import InputError
from nip_audio.screening.records import (
    FLAGGED,
    NOT_JUDGED,
    NOTES,
    ScreenRecord,
    SpeakerRecord,
    Verdict,
)

__all__ = [
    "ALERTING",
    "Acceptance",
    "Known",
    "Review",
    "read_accepted",
    "read_known",
    "review",
    "verdicts_of",
    "write_known",
]

ALERTING: tuple[Verdict, ...] = (*FLAGGED, *NOT_JUDGED)
"""Verdicts that need a person."""

_FIELDS = ("id", "sha256", "verdicts", "reason", "until")
_MAX_BYTES = 1 << 24

Known = frozenset[tuple[str, str | None, str]]
"""Id, SHA-256 and verdict of findings that were told before."""


@dataclass(frozen=True)
class Acceptance:
    """Findings that a person has accepted.

    Attributes:
        id: Id of the file's record: the same content under another speaker is not accepted.
        sha256: SHA-256 of the file's bytes.
        verdicts: Verdicts that are accepted; any other finding of the file is not.
        reason: Why, in words.
        until: Last day on which it holds.
    """

    id: str
    sha256: str
    verdicts: tuple[Verdict, ...]
    reason: str
    until: datetime.date


@dataclass(frozen=True)
class Review:
    """What is left to do of the findings of a run.

    Attributes:
        open: Records that need a person now.
        accepted: Records whose findings are accepted, and the acceptance.
        expired: Records whose acceptance has expired; they are among ``open``, too, if they are
            new.
        known: Records that were told before; they are in no other list.
        left_out: Number of records whose verdict was not asked for.
        speakers: Speakers about whom a strict enrolment gate decides otherwise than to enrol, and
            who were not told before with this decision.
        known_speakers: Those that were told before.
    """

    open: Sequence[ScreenRecord]
    accepted: Sequence[tuple[ScreenRecord, Acceptance]] = ()
    expired: Sequence[ScreenRecord] = ()
    known: Sequence[ScreenRecord] = ()
    left_out: int = 0
    speakers: Sequence[SpeakerRecord] = ()
    known_speakers: Sequence[SpeakerRecord] = ()

    @property
    def flagged(self) -> int:
        """Number of open records that are flagged."""
        return sum(record.flagged for record in self.open)

    @property
    def failed(self) -> int:
        """Number of open records that could not be judged."""
        return sum(record.failed for record in self.open)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "open": [_named(record) for record in self.open],
            "accepted": [
                _named(record) | {"reason": one.reason, "until": one.until.isoformat()}
                for record, one in self.accepted
            ],
            "expired": [record.id for record in self.expired],
            "known": len(self.known),
            "left_out": self.left_out,
            "speakers": [
                {"speaker": one.speaker, "decision": one.gate.decision}
                for one in self.speakers
                if one.gate is not None
            ],
        }


def review(
    records: Iterable[ScreenRecord],
    *,
    verdicts: Collection[Verdict] = ALERTING,
    accepted: Iterable[Acceptance] = (),
    known: Known = frozenset(),
    today: datetime.date | None = None,
    speakers: Iterable[SpeakerRecord] = (),
) -> Review:
    """Sort the records that are not clean by what is left to do.

    Args:
        records: Records of a run.
        verdicts: Verdicts that are asked for.
        accepted: What was accepted.
        known: Findings that were told before.
        today: Day of the review; None is today's.
        speakers: Records of the speakers of the run.
    """
    today = datetime.date.today() if today is None else today
    listed: dict[tuple[str, str | None], list[Acceptance]] = {}
    for one in accepted:
        listed.setdefault((one.id, one.sha256), []).append(one)
    left: list[ScreenRecord] = []
    done: list[tuple[ScreenRecord, Acceptance]] = []
    expired: list[ScreenRecord] = []
    told: list[ScreenRecord] = []
    left_out = 0
    for record in records:
        if record.verdict == "clean":
            continue
        given = [one for one in listed.get((record.id, record.sha256), ()) if _covers(one, record)]
        valid = max(given, key=lambda one: one.until, default=None)
        if record.verdict not in verdicts:
            left_out += 1
        elif valid is not None and today <= valid.until:
            done.append((record, valid))
        elif _key(record) in known and valid is None:
            told.append(record)
        else:
            left.append(record)
            expired += [] if valid is None else [record]
    unfit = [one for one in speakers if _is_unfit(one) and "unfit" in verdicts]
    new = [one for one in unfit if _speaker_key(one) not in known]
    old = [one for one in unfit if _speaker_key(one) in known]
    return Review(left, done, expired, told, left_out, new, old)


def _is_unfit(speaker: SpeakerRecord) -> bool:
    return any(finding.risk == "unfit" for finding in speaker.findings)


def _speaker_key(speaker: SpeakerRecord) -> tuple[str, str | None, str]:
    """Return the key of a speaker's decision; no id of a file ends in a slash."""
    decision = "" if speaker.gate is None else speaker.gate.decision
    return f"{speaker.speaker}/", None, decision


def _covers(acceptance: Acceptance, record: ScreenRecord) -> bool:
    """Tell whether everything that was found in a file is accepted, not its verdict alone."""
    found = {finding.risk for finding in record.findings if finding.risk not in NOTES}
    return {record.verdict, *found} <= set(acceptance.verdicts)


def verdicts_of(text: str) -> tuple[Verdict, ...]:
    """Return the verdicts of a list that is separated by commas.

    Raises:
        InputError: If one is unknown, or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = tuple(verdict for verdict in ALERTING if verdict in names)
    unknown = [name for name in names if name not in ALERTING]
    if unknown or not found:
        raise InputError(
            f"got the verdicts {text!r}, expected some of {', '.join(ALERTING)}, separated by "
            f"commas; {suggest_names((unknown or [''])[0], ALERTING)}"
        )
    return found


def read_accepted(path: Path, *, outside: Path | None = None) -> tuple[Acceptance, ...]:
    """Read a TOML file of acceptances.

    Args:
        path: File to read.
        outside: Folder that is screened, in which the file must not lie: whoever may add
            recordings there could accept them.

    Raises:
        InputError: If it cannot be read, lies in that folder, or an acceptance is incomplete.
    """
    if outside is not None and outside.resolve() in path.resolve().parents:
        raise InputError(
            f"{path} lies in the folder that is screened, where whoever adds recordings could "
            "accept them, too; move it elsewhere"
        )
    try:
        data = tomllib.loads(read_regular(path, most=_MAX_BYTES).decode())
    except (FileNotFoundError, UnfitFileError) as err:
        raise InputError(
            f"{path} is no file of at most {_MAX_BYTES} bytes; check the path"
        ) from err
    except (OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read as TOML ({err}); correct it") from err
    rows = data.get("accepted")
    if data.keys() != {"accepted"} or not isinstance(rows, list):
        raise InputError(
            f"{path} holds {sorted(data) or 'nothing'}, expected tables named [[accepted]] with "
            f"{', '.join(_FIELDS)}; correct it"
        )
    return tuple(_acceptance(path, number, row) for number, row in enumerate(rows, start=1))


def _acceptance(path: Path, number: int, row: Any) -> Acceptance:
    given = row if isinstance(row, dict) else {}
    name, sha256, verdicts, reason, until = (given.get(field) for field in _FIELDS)
    problem = None
    if given.keys() != set(_FIELDS):
        problem = f"has {', '.join(sorted(given)) or 'nothing'}, expected {', '.join(_FIELDS)}"
    elif not isinstance(name, str):
        problem = f"has the id {name!r}, expected the id of a record"
    elif not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        problem = f"has the sha256 {sha256!r}, expected the 64 digits of a record's sha256"
    elif not isinstance(verdicts, list) or not verdicts or not set(verdicts) <= set(ALERTING):
        problem = f"has the verdicts {verdicts!r}, expected a list of {', '.join(ALERTING)}"
    elif not isinstance(reason, str) or not reason.strip():
        problem = "has no reason, expected a sentence"
    elif type(until) is not datetime.date:
        problem = f"has until = {until!r}, expected a date such as 2027-03-31, without quotes"
    if problem is not None:
        raise InputError(f"{path}, acceptance {number} {problem}; correct it")
    return Acceptance(str(name), str(sha256), tuple(verdicts), str(reason), until)  # type: ignore[arg-type]


def read_known(path: Path) -> Known:
    """Read findings that were told before; a file that is missing has none.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        rows = load_json(read_regular(path, most=LARGEST_JSON))
        return frozenset((str(name), sha256, str(verdict)) for name, sha256, verdict in rows)
    except FileNotFoundError:
        return frozenset()
    except (OSError, TypeError, ValueError) as err:
        raise InputError(
            f"{path} is damaged ({err}); delete it, and every finding is told again"
        ) from err


def write_known(path: Path, found: Review) -> None:
    """Write the findings that are known from now on: what is open has been told.

    Raises:
        OutputError: If the file cannot be written.
    """
    keys = [_key(record) for record in (*found.open, *found.known)]
    keys += [_speaker_key(speaker) for speaker in (*found.speakers, *found.known_speakers)]
    write_atomic(path, (json.dumps(sorted(keys, key=str), indent=0) + "\n").encode(), force=True)


def _key(record: ScreenRecord) -> tuple[str, str | None, str]:
    return record.id, record.sha256, record.verdict


def _named(record: ScreenRecord) -> dict[str, Any]:
    return {"id": record.id, "sha256": record.sha256, "verdict": record.verdict}
