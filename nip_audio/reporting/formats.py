"""Write the findings of a screening as JUnit XML, SARIF or JSON lines, for the tools of others.

JUnit XML is what continuous integration shows as a table of tests, SARIF 2.1.0 (OASIS) what code
scanning shows as findings; every line of JSON lines is a record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from nip_audio import __version__
from nip_audio.reporting.escaping import visible
from nip_audio.screening.records import RISKS, ScreenRecord
from nip_audio.screening.review import Review

__all__ = ["FORMATS", "json_lines", "junit", "sarif"]

_UNREADABLE = "the file could not be read or measured"


def json_lines(records: Iterable[ScreenRecord], review: Review) -> Iterator[str]:
    """Return the records that need a person, one a line, as in results.jsonl."""
    del records
    return (record.to_line() for record in review.open)


def junit(records: Iterable[ScreenRecord], review: Review) -> Iterator[str]:
    """Return JUnit XML: every file is a test case of its speaker.

    A flagged file is a failure, one that could not be judged an error, and one whose findings were
    accepted, or told before, is skipped. What was not asked for passes.

    Args:
        records: Records of all files.
        review: What is left to do of them.
    """
    open_now = {record.id for record in review.open}
    skipped = {record.id: f"told before: {record.verdict}" for record in review.known}
    skipped |= {
        record.id: f"{record.verdict}, accepted until {one.until}: {one.reason}"
        for record, one in review.accepted
    }
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    suite = ElementTree.Element("testsuite", name="nip-audio screen")
    for record in records:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            name=visible(record.id),
            classname=visible(record.speaker or "no speaker"),
        )
        counts["tests"] += 1
        if record.id in open_now:
            kind = "failure" if record.flagged else "error"
            told = {"type": record.verdict, "message": visible(" ".join(record.why))}
            ElementTree.SubElement(case, kind, told)
            counts[f"{kind}s"] += 1
        elif record.id in skipped:
            ElementTree.SubElement(case, "skipped", message=visible(skipped[record.id]))
            counts["skipped"] += 1
    suite.attrib |= {name: str(count) for name, count in counts.items()}
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(suite, encoding="unicode")


def sarif(records: Iterable[ScreenRecord], review: Review) -> Iterator[str]:
    """Return one SARIF log: every finding that is open, accepted or known is a result.

    Accepted findings are suppressed with their reason, and known ones are unchanged.

    Args:
        records: Not looked at: a clean file is no result.
        review: What is left to do.
    """
    del records
    results = [_result(record, baselineState="new") for record in review.open]
    results += [_result(record, baselineState="unchanged") for record in review.known]
    results += [
        _result(record, suppressions=[{"kind": "external", "justification": one.reason}])
        for record, one in review.accepted
    ]
    rules = [
        {"id": risk, "help": {"text": remedy}, "shortDescription": {"text": risk}}
        for risk, remedy in (*RISKS.items(), ("error", _UNREADABLE))
    ]
    driver = {"name": "nip-audio", "version": __version__, "rules": rules}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    yield json.dumps(log, indent=1, ensure_ascii=True, allow_nan=False)


def _result(record: ScreenRecord, **more: Any) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": quote(os.fsencode(record.id))}}
    result: dict[str, Any] = {
        "ruleId": record.verdict,
        "level": "error" if record.flagged else "warning",
        "message": {"text": visible(" ".join(record.why))},
        "locations": [{"physicalLocation": place}],
    }
    if record.sha256 is not None:
        result["partialFingerprints"] = {"sha256": record.sha256}
    return result | more


Format = Callable[[Iterable[ScreenRecord], Review], Iterator[str]]

FORMATS: Mapping[str, Format] = {"jsonl": json_lines, "junit": junit, "sarif": sarif}
"""What writes each format, given the records of all files and what is left to do of them."""
