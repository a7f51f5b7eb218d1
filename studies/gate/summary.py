"""What the gate found of the measured clips, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nip_audio.audio.speech import speech_finder
from nip_audio.core.metrics import Interval, auroc
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import RecordingDetails
from nip_audio.screening.enrolment.files import failures_of
from nip_audio.screening.enrolment.limits import GateLimits
from nip_audio.screening.journal import from_line
from nip_audio.screening.judge import Judge
from nip_audio.screening.measured import FileFacts, MeasuredFile, Measurement
from nip_audio.screening.records import ScreenRecord
from studies._lib.shares import share_of
from studies.gate.clips import ATTACKED, GOOD, LEAST_S, MEMBER, MOST_S, SECOND, SEED
from studies.gate.faults import FAULTS
from studies.gate.one_voice import Voice, same_voices

__all__ = ["summarise"]

_FOLDER = 5
_FINDINGS = ("adversarial", "damaged", "out_of_domain")

Row = Mapping[str, Any]
Array = NDArray[np.float64]


def summarise(
    rows: Sequence[Row], calibration: Calibration, sexes: Mapping[str, str]
) -> dict[str, Any]:
    """Return recall of each fault, false alarms, and what is found by comparing recordings.

    Args:
        rows: What was measured of each clip.
        calibration: Calibration that judges it.
        sexes: Sex of each speaker.
    """
    judge = Judge.at(calibration)
    judged = [_judged(row, judge) for row in rows if "line" in row]
    good = [row for row in judged if row["kind"] == GOOD]
    folders = _folders(rows)
    return {
        "finder": speech_finder(),
        "seconds": {"least": LEAST_S, "most": MOST_S},
        "seed": SEED,
        "good": len(good),
        "recordings": len({row["recording"] for row in good}),
        "speakers": len({row["speaker"] for row in good}),
        "verification_threshold": calibration.verification_threshold,
        "false_positive_rate": judge.false_positive_rate,
        "limits": GateLimits.of(None).to_json(),
        "faults": [_fault(name, _of(judged, name)) for name in (*FAULTS, ATTACKED)],
        "attacks": {"tried": sum(row["kind"] == ATTACKED for row in rows)},
        "mistaken": _mistaken(good),
        "voices": _voices(judged, good, sexes),
        "snr": {"median_db": _median_snr(judged)},
        "folders": _compare(good, folders, judge, sexes),
        "same_voice": same_voices(
            {
                name: Voice(np.stack([_embedding(one) for one in folders[name]]), later)
                for name, later in _crops(good).items()
            }
        ),
    }


def _judged(row: Row, judge: Judge) -> dict[str, Any]:
    """Return a row with the measured file, and the names of all that was found in it."""
    file = from_line(row["line"].encode())
    record = judge.judge(file)
    found: list[str] = [one.risk for one in record.findings if one.risk in _FINDINGS]
    if file.error is not None:
        found.append(file.error["code"])
    limits = _limits(file, judge.calibration)
    return {**row, "file": file, "found": {*found, *limits}, "limits": limits}


def _limits(file: MeasuredFile, calibration: Calibration) -> list[str]:
    if file.speech is None:
        return []
    limits, threshold = GateLimits.of(None).recording, calibration.verification_threshold
    facts = cast("FileFacts", file.facts)
    return [one.limit for one in failures_of(file.speech, facts, limits, threshold)]


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _share(rows: Sequence[Row], hits: Sequence[bool]) -> Interval | None:
    """Return a share with its interval; None of no clips, which a part of the study may have."""
    if not rows:
        return None
    return share_of(hits, [row["speaker"] for row in rows], seed=SEED)


def _fault(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    by = FAULTS[name].limit if name in FAULTS else "adversarial"
    return {
        "fault": name,
        "limit": by,
        "clips": len(rows),
        "found": _share(rows, [by in row["found"] for row in rows]),
        "any": _share(rows, [bool(row["found"]) for row in rows]),
    }


def _mistaken(good: Sequence[Row]) -> list[dict[str, Any]]:
    names = sorted({fault.limit for fault in FAULTS.values()} - {"silent"})
    each = {name: [name in row["found"] for row in good] for name in (*names, "adversarial")}
    each["any limit of the gate"] = [bool(row["limits"]) for row in good]
    return [
        {"limit": name, "clips": len(good), "share": _share(good, hits)}
        for name, hits in each.items()
    ]


def _voices(judged: Sequence[Row], good: Sequence[Row], sexes: Mapping[str, str]) -> dict[str, Any]:
    """Return how often a second voice is found, by its length and by the sexes."""

    def alike(row: Row) -> bool:
        return sexes[row["speaker"]] == sexes[row["other"]]

    def found(rows: Sequence[Row]) -> dict[str, Any]:
        hits = ["least_part_cosine" in row["found"] for row in rows]
        return {"clips": len(rows), "found": _share(rows, hits)}

    two = _of(judged, next(iter(FAULTS)))
    second = _of(judged, SECOND)
    lengths = sorted({row["seconds"] for row in second})
    clean, mixed = (_cosines(rows) for rows in (good, two))
    return {
        "auroc": auroc(-_known(mixed), -_known(clean)),
        "clean_not_evaluated": clean.count(None),
        "two_not_evaluated": mixed.count(None),
        "same_sex": found([row for row in two if alike(row)]),
        "other_sex": found([row for row in two if not alike(row)]),
        "by_seconds": [
            {
                "seconds": length,
                **found(rows),
                "same_sex": found([row for row in rows if alike(row)]),
                "other_sex": found([row for row in rows if not alike(row)]),
            }
            for length in lengths
            for rows in [[row for row in second if row["seconds"] == length]]
        ],
    }


def _cosines(rows: Sequence[Row]) -> list[float | None]:
    return [row["file"].speech.part_cosine for row in rows if row["file"].speech is not None]


def _known(values: Sequence[float | None]) -> Array:
    return np.array([value for value in values if value is not None])


def _median_snr(judged: Sequence[Row]) -> float:
    files = [row["file"] for row in _of(judged, "white noise at 5 dB")]
    return float(np.median(_known([file.speech.snr_db for file in files])))


def _folders(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the recordings of each speaker's folder, those of one chapter first."""
    found: dict[str, list[Row]] = {}
    for row in _of(rows, MEMBER):
        found.setdefault(row["speaker"], []).append(row)
    return found


def _embedding(member: Row) -> Array:
    return np.array(member["embedding"])


def _crops(good: Sequence[Row]) -> dict[str, Array]:
    """Return the embeddings of each speaker's clean clips, one of each recording."""
    rows: dict[str, dict[str, Array]] = {}
    for row in good:
        own = rows.setdefault(row["speaker"], {})
        own.setdefault(row["recording"], row["file"].measurement.embedding)
    return {name: np.stack(list(own.values())) for name, own in rows.items()}


def _compare(
    good: Sequence[Row],
    folders: Mapping[str, Sequence[Row]],
    judge: Judge,
    sexes: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return how often a clip is inconsistent with five others, of its own and another speaker."""
    draw = np.random.default_rng(SEED)
    cases: dict[str, list[tuple[Row, bool]]] = {}
    for row in good:
        others = [name for name in folders if name != row["speaker"]]
        wrong = others[int(draw.integers(len(others)))]
        kind = "same sex" if sexes[wrong] == sexes[row["speaker"]] else "other sex"
        own = folders[row["speaker"]][:_FOLDER]
        known = row["chapter"] in {one["chapter"] for one in own}
        for members, case in (
            (own, f"own folder, {'a chapter of it' if known else 'another chapter'}"),
            (folders[wrong][:_FOLDER], f"another speaker's folder, {kind}"),
        ):
            cases.setdefault(case, []).append((row, _inconsistent(row, members, judge)))
    return [
        {
            "case": case,
            "clips": len(rows),
            "speakers": len({row["speaker"] for row, _ in rows}),
            "inconsistent": _share([row for row, _ in rows], [hit for _, hit in rows]),
            "flagged_speakers": len({row["speaker"] for row, hit in rows if hit}),
        }
        for case, rows in sorted(cases.items())
    ]


def _inconsistent(row: Row, members: Sequence[Row], judge: Judge) -> bool:
    embeddings = [*map(_embedding, members), row["file"].measurement.embedding]
    records = [
        ScreenRecord(str(k), "speaker", "clean", details=RecordingDetails())
        for k in range(len(embeddings))
    ]
    empty = np.zeros(0)
    measured = [Measurement(one, empty, empty) for one in embeddings]
    last = judge.kind.compare(records, measured, judge.calibration)[-1]
    return any(finding.risk == "inconsistent" for finding in last.findings)
