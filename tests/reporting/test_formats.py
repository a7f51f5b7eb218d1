"""Findings in the formats of other tools."""

from __future__ import annotations

import datetime
import json
from xml.etree import ElementTree

import pytest

from nip_audio.reporting.formats import FORMATS, json_lines, junit, sarif
from nip_audio.screening.records import RISKS, Finding, ScreenRecord
from nip_audio.screening.review import Acceptance, Review

UNREADABLE = {"code": "not_audio", "found": "it is a picture", "remedy": "remove it"}


def flagged(name: str, risk: str = "adversarial", speaker: str | None = "ann") -> ScreenRecord:
    finding = Finding(risk, "it looks attacked", "listen to it")
    return ScreenRecord(name, speaker, risk, (finding,), sha256="ab" * 32)


CLEAN = ScreenRecord("ann/clean.wav", "ann", "clean")
ATTACKED = flagged("ann/a b.wav")
BROKEN = ScreenRecord("bob/x.wav", "bob", "error", error=UNREADABLE)
ACCEPTED = flagged("ann/accepted.wav", "duplicate")
KNOWN = flagged("flat.wav", "damaged", speaker=None)
EVERY = [CLEAN, ATTACKED, BROKEN, ACCEPTED, KNOWN]


@pytest.fixture
def review() -> Review:
    until = datetime.date(2027, 1, 31)
    acceptance = Acceptance("ann/accepted.wav", "ab" * 32, ("duplicate",), "twins", until)
    return Review([ATTACKED, BROKEN], accepted=[(ACCEPTED, acceptance)], known=[KNOWN])


def test_junit_shows_every_file_as_a_test(review):
    suite = ElementTree.fromstring("\n".join(junit(EVERY, review)))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "2"}
    cases = {case.get("name"): case for case in suite}
    assert list(cases["ann/clean.wav"]) == []
    (failure,) = cases["ann/a b.wav"]
    assert (failure.tag, failure.get("type")) == ("failure", "adversarial")
    assert "it looks attacked" in failure.get("message")
    assert "listen to it" in failure.get("message")
    (error,) = cases["bob/x.wav"]
    assert (error.tag, error.get("type")) == ("error", "error")
    assert "it is a picture" in error.get("message")
    assert cases["ann/accepted.wav"][0].get("message") == (
        "duplicate, accepted until 2027-01-31: twins"
    )
    assert cases["flat.wav"][0].get("message") == "told before: damaged"
    assert cases["flat.wav"].get("classname") == "no speaker"


def test_sarif_has_a_result_for_every_finding_and_a_rule_for_every_result(review):
    log = json.loads("".join(sarif(EVERY, review)))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert rules == {*RISKS, "error"}
    results = {_place(one): one for one in run["results"]}
    assert set(results) == {"ann/a%20b.wav", "bob/x.wav", "ann/accepted.wav", "flat.wav"}
    assert {one["ruleId"] for one in run["results"]} <= rules
    assert results["ann/a%20b.wav"]["level"] == "error"
    assert results["ann/a%20b.wav"]["baselineState"] == "new"
    assert results["ann/a%20b.wav"]["partialFingerprints"] == {"sha256": "ab" * 32}
    assert results["bob/x.wav"]["level"] == "warning"
    assert results["flat.wav"]["baselineState"] == "unchanged"
    (suppression,) = results["ann/accepted.wav"]["suppressions"]
    assert suppression == {"kind": "external", "justification": "twins"}


def _place(result: dict) -> str:
    return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


def test_json_lines_are_the_open_records(review):
    lines = list(json_lines(EVERY, review))
    assert [ScreenRecord.from_line(line) for line in lines] == [ATTACKED, BROKEN]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_names_that_do_not_print_harm_no_format(form):
    record = flagged("ann/\x1b[2J\u202e\udcff<&\n.wav")
    text = "\n".join(FORMATS[form]([record], Review([record])))
    text.encode("utf-8")
    assert not set(text) & {"\x1b", "\u202e"}
    if form == "junit":
        ElementTree.fromstring(text)
    else:
        assert json.loads(text)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_nothing_found_is_a_valid_document(form):
    text = "\n".join(FORMATS[form]([CLEAN], Review([])))
    if form == "jsonl":
        assert text == ""
    elif form == "junit":
        assert ElementTree.fromstring(text).get("failures") == "0"
    else:
        assert json.loads(text)["runs"][0]["results"] == []
