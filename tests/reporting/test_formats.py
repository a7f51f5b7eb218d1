"""Findings in the formats of other tools."""

from __future__ import annotations

import datetime
import json
from xml.etree import ElementTree

import pytest

from nip_audio.reporting.formats import FORMATS, json_lines, junit, sarif
from nip_audio.screening.records import RISKS, Finding, ScreenRecord, SpeakerGate, SpeakerRecord
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


def decided(name: str, decision: str, risk: str | None = "unfit") -> SpeakerRecord:
    gate = SpeakerGate(2, 9.5, 0.8, None, None, None, None, None, decision, "2 usable recordings")
    found = () if risk is None else (Finding(risk, f"{decision}: {gate.why}", "record more"),)
    return SpeakerRecord(name, "clean", 3, 0, 0, found, gate)


ANN = decided("ann", "enrol", None)
BOB, CAL, DEE = decided("bob", "ask"), decided("cal", "record more"), decided("dee", "reject")
SPEAKERS = [ANN, BOB, CAL, DEE]
OF_SPEAKERS = [ScreenRecord(f"{one.speaker}/1.wav", one.speaker, "clean") for one in SPEAKERS]


@pytest.fixture
def review() -> Review:
    until = datetime.date(2027, 1, 31)
    acceptance = Acceptance("ann/accepted.wav", "ab" * 32, ("duplicate",), "twins", until)
    return Review([ATTACKED, BROKEN], accepted=[(ACCEPTED, acceptance)], known=[KNOWN])


def test_junit_shows_every_file_as_a_test(review):
    suite = ElementTree.fromstring("\n".join(junit(EVERY, [], review)))
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


def test_junit_shows_what_a_gate_decides_about_every_speaker():
    review = Review([], speakers=[BOB], known_speakers=[CAL])
    suite = ElementTree.fromstring("\n".join(junit(OF_SPEAKERS, SPEAKERS, review)))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "1", "errors": "0", "skipped": "1"}
    cases = {c.get("classname"): c for c in suite if c.get("name") == "enrolment decision"}
    told = {
        name: (case[0].tag, case[0].text or case[0].get("message")) for name, case in cases.items()
    }
    assert told["ann"] == ("system-out", "ann: enrol: 2 usable recordings")
    kind, text = told["bob"]
    assert (kind, cases["bob"][0].get("type")) == ("failure", "ask")
    assert text.startswith("bob: ask: 2 usable recordings. What to do: enrol nothing of this")
    assert told["cal"] == ("skipped", "told before: record more")
    assert told["dee"][0] == "system-out"  # told, and not asked for


def test_sarif_has_a_result_for_every_speaker_who_is_not_to_be_enrolled():
    review = Review([], speakers=[BOB], known_speakers=[CAL])
    (run,) = json.loads("".join(sarif(OF_SPEAKERS, SPEAKERS, review)))["runs"]
    rules = {rule["id"]: rule["help"]["text"] for rule in run["tool"]["driver"]["rules"]}
    results = {_place(one): one for one in run["results"]}
    assert {place: (one["ruleId"], one["level"]) for place, one in results.items()} == {
        "bob/1.wav": ("speaker/ask", "error"),
        "cal/1.wav": ("speaker/record-more", "error"),
        "dee/1.wav": ("speaker/reject", "note"),
    }
    states = [one.get("baselineState") for one in results.values()]
    assert states == ["new", "unchanged", None]
    assert rules["speaker/record-more"] == "record more of this speaker, and screen again"
    assert "bob: ask: 2 usable" in results["bob/1.wav"]["message"]["text"]
    (logical,) = results["bob/1.wav"]["locations"][0]["logicalLocations"]
    assert logical == {"fullyQualifiedName": "bob"}


def test_sarif_has_a_result_for_every_finding_and_a_rule_for_every_result(review):
    log = json.loads("".join(sarif(EVERY, [], review)))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    decisions = {"speaker/record-more", "speaker/ask", "speaker/reject"}
    assert rules == {*RISKS, "error", *decisions}
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
    lines = list(json_lines(EVERY, SPEAKERS, review))
    assert [ScreenRecord.from_line(line) for line in lines] == [ATTACKED, BROKEN]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_names_that_do_not_print_harm_no_format(form):
    name = "ann\x1b[2J\u202e\udcff<&\n"
    record, speaker = flagged(f"{name}/1.wav", speaker=name), decided(name, "ask")
    text = "\n".join(FORMATS[form]([record], [speaker], Review([record], speakers=[speaker])))
    text.encode("utf-8")
    assert not set(text) & {"\x1b", "\u202e"}
    if form == "junit":
        ElementTree.fromstring(text)
    else:
        assert json.loads(text)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_nothing_found_is_a_valid_document(form):
    text = "\n".join(FORMATS[form]([CLEAN], [ANN], Review([])))
    if form == "jsonl":
        assert text == ""
    elif form == "junit":
        assert ElementTree.fromstring(text).get("failures") == "0"
    else:
        assert json.loads(text)["runs"][0]["results"] == []
