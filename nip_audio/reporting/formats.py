"""Write the findings of a screening as JUnit XML, SARIF or JSON lines, for the tools of others.

JUnit XML is what continuous integration shows as a table of tests, SARIF 2.1.0 (OASIS) what code
scanning shows as findings; every line of JSON lines is a record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from nip_audio import __version__
from nip_audio.reporting.escaping import visible
from nip_audio.screening.enrolment.gate import DECISION_REMEDIES
from nip_audio.screening.records import RISKS, ScreenRecord, SpeakerGate, SpeakerRecord
from nip_audio.screening.review import Review

__all__ = ["FORMATS", "json_lines", "junit", "sarif"]

_UNREADABLE = "the file could not be read or measured"
_DECISION = "enrolment decision"


def json_lines(
    records: Iterable[ScreenRecord], speakers: Iterable[SpeakerRecord], review: Review
) -> Iterator[str]:
    """Return the records that need a person, one a line, as in results.jsonl."""
    del records, speakers
    return (record.to_line() for record in review.open)


def junit(
    records: Iterable[ScreenRecord], speakers: Iterable[SpeakerRecord], review: Review
) -> Iterator[str]:
    """Return JUnit XML: every file is a test case of its speaker.

    A flagged file is a failure, one that could not be judged an error, and one whose findings were
    accepted, or told before, is skipped. What was not asked for passes.

    With an enrolment gate the decision about each speaker is a test case, too. It fails where a
    strict gate decides otherwise than to enrol; where it does not fail, its output is the decision.

    Args:
        records: Records of all files.
        speakers: Records of all speakers.
        review: What is left to do of them.
    """
    open_now = {record.id for record in review.open}
    skipped = {record.id: f"told before: {record.verdict}" for record in review.known}
    skipped |= {
        record.id: f"{record.verdict}, accepted until {one.until}: {one.reason}"
        for record, one in review.accepted
    }
    suite = ElementTree.Element("testsuite", name="nip-audio screen")
    for record in records:
        case = _case(suite, record.id, record.speaker or "no speaker")
        if record.id in open_now:
            kind = "failure" if record.flagged else "error"
            told = {"type": record.verdict, "message": visible(" ".join(record.why))}
            ElementTree.SubElement(case, kind, told)
        elif record.id in skipped:
            ElementTree.SubElement(case, "skipped", message=visible(skipped[record.id]))
    failing = {one.speaker for one in review.speakers}
    known = {one.speaker for one in review.known_speakers}
    for speaker, gate in _decided(speakers):
        case = _case(suite, _DECISION, speaker.speaker)
        text = visible(_of_speaker(speaker, gate))
        if speaker.speaker in failing:
            ElementTree.SubElement(case, "failure", {"type": gate.decision, "message": text})
        elif speaker.speaker in known:
            ElementTree.SubElement(case, "skipped", message=f"told before: {gate.decision}")
        else:
            ElementTree.SubElement(case, "system-out").text = text
    suite.set("tests", str(len(suite)))
    for kind in ("failure", "error", "skipped"):
        name = kind if kind == "skipped" else f"{kind}s"
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(suite, encoding="unicode")


def _case(suite: ElementTree.Element, name: str, of: str) -> ElementTree.Element:
    given = {"name": visible(name), "classname": visible(of)}
    return ElementTree.SubElement(suite, "testcase", given)


def _decided(speakers: Iterable[SpeakerRecord]) -> Iterator[tuple[SpeakerRecord, SpeakerGate]]:
    """Return the speakers about whom an enrolment gate has decided."""
    return ((one, one.gate) for one in speakers if one.gate is not None)


def _of_speaker(speaker: SpeakerRecord, gate: SpeakerGate) -> str:
    """Return the decision about a speaker in words."""
    remedy = DECISION_REMEDIES.get(gate.decision)
    what = "" if remedy is None else f". What to do: {remedy}."
    return f"{speaker.speaker}: {gate.decision}: {gate.why}{what}"


def sarif(
    records: Iterable[ScreenRecord], speakers: Iterable[SpeakerRecord], review: Review
) -> Iterator[str]:
    """Return one SARIF log: every finding that is open, accepted or known is a result.

    Accepted findings are suppressed with their reason, and known ones are unchanged. With an
    enrolment gate every decision about a speaker but to enrol is a result, too, at the place of the
    speaker's first file: an error of a strict gate, otherwise a note.

    Args:
        records: Records of all files; a clean one is no result.
        speakers: Records of all speakers.
        review: What is left to do.
    """
    results = [_result(record, baselineState="new") for record in review.open]
    results += [_result(record, baselineState="unchanged") for record in review.known]
    results += [
        _result(record, suppressions=[{"kind": "external", "justification": one.reason}])
        for record, one in review.accepted
    ]
    decided = [(one, gate) for one, gate in _decided(speakers) if gate.decision != "enrol"]
    results += _results_of_speakers(decided, records, review)
    of_speakers = ((_rule(decision), remedy) for decision, remedy in DECISION_REMEDIES.items())
    rules = [
        {"id": name, "help": {"text": remedy}, "shortDescription": {"text": name}}
        for name, remedy in (*RISKS.items(), ("error", _UNREADABLE), *of_speakers)
    ]
    driver = {"name": "nip-audio", "version": __version__, "rules": rules}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    yield json.dumps(log, indent=1, ensure_ascii=True, allow_nan=False)


def _result(record: ScreenRecord, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": record.verdict,
        "level": "error" if record.flagged else "warning",
        "message": {"text": visible(" ".join(record.why))},
        "locations": [_place(record.id)],
    }
    if record.sha256 is not None:
        result["partialFingerprints"] = {"sha256": record.sha256}
    return result | more


def _results_of_speakers(
    decided: Sequence[tuple[SpeakerRecord, SpeakerGate]],
    records: Iterable[ScreenRecord],
    review: Review,
) -> Iterator[dict[str, Any]]:
    names = {speaker.speaker for speaker, _ in decided}
    first: dict[str, str] = {}
    for record in records if names else ():
        if record.speaker in names:
            first.setdefault(str(record.speaker), record.id)
    failing = {one.speaker for one in review.speakers}
    known = {one.speaker for one in review.known_speakers}
    for speaker, gate in decided:
        name = speaker.speaker
        result = {
            "ruleId": _rule(gate.decision),
            "level": "error" if name in failing | known else "note",
            "message": {"text": visible(_of_speaker(speaker, gate))},
            "locations": [
                {**_place(first[name]), "logicalLocations": [{"fullyQualifiedName": visible(name)}]}
            ],
        }
        if name in failing | known:
            result["baselineState"] = "unchanged" if name in known else "new"
        yield result


def _rule(decision: str) -> str:
    return f"speaker/{decision.replace(' ', '-')}"


def _place(record_id: str) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": {"uri": quote(os.fsencode(record_id))}}}


Format = Callable[[Iterable[ScreenRecord], Iterable[SpeakerRecord], Review], Iterator[str]]

FORMATS: Mapping[str, Format] = {"jsonl": json_lines, "junit": junit, "sarif": sarif}
"""What writes each format, given the records of all files and speakers and what is left to do."""
