"""The page: whole, right, and deaf to what file names say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from nip_audio.errors import InputError, OutputError, ResumeError
from nip_audio.reporting.escaping import visible
from nip_audio.reporting.report import most_severe, write_report
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.enrolment.gate import EnrolmentGate
from nip_audio.screening.records import Finding, ScreenRecord
from nip_audio.screening.sources import FolderSource


class Parts(HTMLParser):
    """Collects elements, and what the scripts hold."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.texts, self._open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.scripts.append([dict(attrs), ""])
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.scripts[-1][1] += data
        else:
            self.texts.append(data)

    def json(self, name):
        (text,) = [text for attrs, text in self.scripts if attrs.get("id") == name]
        return json.loads(text)


def page_of(run, source=None):
    return Parts(write_report(run, source, None).read_text(encoding="utf-8"))


def test_every_record_is_in_the_page_with_its_numbers(write_run, record_of):
    finding = Finding.of("damaged", "it breaks off")
    alone = record_of("a.wav", None, 1.25, findings=(finding,), changes=())
    failed = ScreenRecord(
        "b.wav", "x", "error", error={"code": "empty", "found": "it is empty", "remedy": "again"}
    )
    page = page_of(write_run([alone, failed]))
    head, rows = page.json("head"), page.json("files")
    first, second = (dict(zip(head["files"], row, strict=True)) for row in rows)
    assert (first["distance"], first["speaker"], first["changes"]) == (1.25, None, [])
    risk, why, remedy = first["findings"][0]
    assert (head["words"][risk], why) == ("damaged", "it breaks off")
    assert head["words"][remedy] == finding.remedy
    assert second["error"][:2] == ["empty", "it is empty"]
    assert head["words"][second["verdict"]] == "error"
    assert head["verdicts"] == {"damaged": 1, "error": 1}
    assert head["limits"]["distance_threshold"] == 1.5
    (speaker,) = page.json("speakers")
    assert dict(zip(head["speakers"], speaker, strict=True))["failed"] == 1


def test_the_finding_that_is_the_verdict_comes_first(write_run, record_of):
    unfit = Finding.of("unfit", "0.5 s of speech")
    twice = Finding.of("duplicate", "it is another's")
    page = page_of(write_run([record_of("a.wav", "x", 1.0, findings=(unfit, twice))]))
    head, (row,) = page.json("head"), page.json("files")
    told = dict(zip(head["files"], row, strict=True))["findings"]
    assert [why for _, why, _ in told] == ["it is another's", "0.5 s of speech"]


def test_the_limits_of_a_gate_are_among_what_the_results_depend_on(write_run, record_of):
    run = write_run([record_of("a.wav", "x", 1.0)], gate=EnrolmentGate.at(strict=True))
    text = "".join(page_of(run).texts)
    assert "recording: least_speech_s 2, least_snr_db 10, least_level_dbfs -45" in text
    assert "least_part_cosine by the threshold of voices" in text
    assert "strict: what misses one is unfit" in text


def test_names_are_data(write_run, hostile_names, hostile_records, tmp_path):
    source = tmp_path / "<b onload=hacked=1>"
    plain = page_of(write_run([ScreenRecord("a", "a", "clean")], source=source))
    (tmp_path / "run").rename(tmp_path / "other")
    page = page_of(write_run(hostile_records, source=source), FolderSource(source))
    kinds = {tag for tag, _ in page.elements}
    drawing = {"svg", "rect", "line", "text", "title", "polyline", "figure", "figcaption", "b"}
    assert kinds - {tag for tag, _ in plain.elements} <= drawing
    assert len(page.scripts) == len(plain.scripts) == 5
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    head = page.json("head")
    rows = [dict(zip(head["files"], row, strict=True)) for row in page.json("files")]
    assert [row["id"] for row in rows] == [visible(f"{n}/{n}") for n in hostile_names]
    for row, name in zip(rows, hostile_names, strict=True):
        assert row["id"].isprintable()
        assert re.match(r"\.\./|\./", row["link"])
        link = unquote(row["link"], errors="surrogateescape")
        assert link == f"../{source.name}/{name}/{name}"
    assert f"Screening of {source.name}" in "".join(page.texts)


def test_policy_lets_the_pages_own_script_run_and_nothing_be_fetched(write_run):
    page = page_of(write_run([ScreenRecord("a", "a", "clean")]))
    (policy,) = [
        attrs["content"]
        for tag, attrs in page.elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    code, style = page.scripts[-1][1], page.scripts[0][1]
    for text in (code, style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for _, attrs in page.elements:
        assert "style" not in attrs
        for name in ("src", "href"):
            assert re.match(r"#|data:|\.|$", attrs.get(name) or "")


def test_charts_count_every_file_once(write_run, many_records):
    run = write_run(many_records(500))
    html = write_report(run, None, None).read_text(encoding="utf-8")
    distances = re.findall(r"<title>distance [^:]*: (\d+) (not flagged|flagged)</title>", html)
    assert sum(int(number) for number, _ in distances) == 500
    assert sum(int(number) for number, kind in distances if kind == "flagged") == 5
    assert sum(map(int, re.findall(r"<title>p [^:]*: (\d+) files", html))) == 500
    assert sum(map(int, re.findall(r"<title>cosine [^:]*: (\d+) files", html))) == 500
    assert "threshold 1.5" in html
    assert "<strong>5</strong> of 500 files need" in html


def test_a_run_in_which_nothing_could_be_judged_has_no_charts(write_run):
    error = {"code": "empty", "found": "empty", "remedy": "-"}
    run = write_run([ScreenRecord("a", None, "error", error=error)])
    html = write_report(run, None, None).read_text(encoding="utf-8")
    assert "<svg" not in html
    assert "1 could not be judged (1 error: " in html


def test_a_file_that_is_out_of_domain_needs_a_look_and_is_not_flagged(write_run):
    odd = ScreenRecord("a", None, "out_of_domain")
    run = write_run([odd, ScreenRecord("b", None, "clean")])
    html = write_report(run, None, None).read_text(encoding="utf-8")
    assert "<strong>0</strong> of 2 files need attention" in html
    assert "1 could not be judged (1 out of domain)" in html
    assert run.drawable == 1
    assert [record.id for record in run.flagged()] == ["a"]


def test_what_the_distance_is_depends_on_the_detector(write_run, record_of):
    sound = {"sound_s": 3.5, "window_s": 1.25, "resembles": "an attack (PGD, ε 0.0021)"}
    one = record_of("a", None, 5.0, distance_threshold=2.0, **sound)
    two = record_of("b", None, 0.1, distance_threshold=3.0, **sound)
    run = write_run([one, two])
    plain = page_of(run)
    assert plain.json("head")["terms"]["distance"] == "distance from clean audio"
    assert "odds" not in "".join(plain.texts)
    run.summary.update({"window_s": 3.0, "purifier": "f" * 64})
    page = page_of(run)
    head, rows = page.json("head"), page.json("files")
    assert head["terms"]["distance"] == "distance from harmless audio"
    assert "0.69 means even odds" in head["terms"]["meaning"]
    assert "harmless condition" in head["terms"]["p_value"]
    first, second = (dict(zip(head["files"], row, strict=True)) for row in rows)
    assert {name: first[name] for name in sound} == sound
    assert (first["distance_threshold"], second["distance_threshold"]) == (2.0, 3.0)
    text = " ".join(page.texts)
    assert "log(1 + odds of an attack), so that 0.69 means even odds" in text
    assert "Each file has a threshold of its own" in text
    assert "lowest threshold 2" in text
    assert "highest 3" in text
    assert "response of the purifier ffffffffffffffff… to windows of at most 3 s" in text


def test_the_gravest_are_drawn_first(record_of):
    records = [
        record_of("clean", "x", 1.0),
        record_of("far", "x", 2.0, p_value=0.01),
        record_of("farther", "x", 3.0, p_value=0.01),
        ScreenRecord("torn", "x", "damaged"),
        ScreenRecord("strange", "x", "out_of_domain"),
        record_of("rare", "x", 1.6, p_value=0.001),
    ]
    ranked = [(place, record.id) for place, record in most_severe(records, 9)]
    assert ranked == [(5, "rare"), (2, "farther"), (1, "far"), (3, "torn"), (4, "strange")]
    assert most_severe(records, 0) == []


def test_what_is_no_finished_run_is_refused(tmp_path, write_run, record_of):
    with pytest.raises(ResumeError, match="expected a folder that nip-audio screen wrote"):
        ScreenedRun.open(tmp_path)
    run = write_run([record_of("a", None, 1.0)])
    with (run.folder / "results.jsonl").open("a") as file:
        file.write(record_of("b", None, 1.0).to_line() + "\n")
    with pytest.raises(ResumeError, match=r"not the file that summary\.json was written with"):
        write_report(run, None, None)
    assert not list(run.folder.glob("*.html*"))
    (run.folder / "summary.json").write_text("[]")
    with pytest.raises(ResumeError, match="damaged"):
        ScreenedRun.open(run.folder)
    (run.folder / "summary.json").write_text("{}")
    with pytest.raises(ResumeError, match="lacks model"):
        ScreenedRun.open(run.folder)


def test_records_of_one_run_are_not_read_with_the_summary_of_another(write_run, record_of):
    """A run that was killed after it had replaced one of the three files."""
    run = write_run([record_of("a", None, 1.0)])
    summary = (run.folder / "summary.json").read_text()
    for name in ("results.jsonl", "speakers.jsonl"):
        kept = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(kept + kept.replace(b'"clean"', b'"adversarial"') + b" ")
        with pytest.raises(ResumeError, match="a run is writing there, or one was killed there"):
            write_report(ScreenedRun.open(run.folder), None, None)
        (run.folder / name).write_bytes(kept)
    assert write_report(ScreenedRun.open(run.folder), None, None).exists()
    for old, new in (('"clean": 1', '"clean": 0'), ('"files": 1', '"files": 2')):
        assert old in summary
        (run.folder / "summary.json").write_text(summary.replace(old, new))
        with pytest.raises(ResumeError, match=r"has 1 records \(1 clean\), its summary counts"):
            list(ScreenedRun.open(run.folder).files())


def test_an_old_page_stays_if_the_new_one_cannot_be_written(write_run, record_of):
    run = write_run([record_of("a", None, 1.0)])
    page = write_report(run, None, None)
    before = page.read_bytes()
    (run.folder / "results.jsonl").unlink()
    with pytest.raises(ResumeError, match="cannot be read"):
        write_report(run, None, None)
    assert page.read_bytes() == before
    page.unlink()
    page.mkdir()
    (page / "in the way").touch()
    run = ScreenedRun(run.folder, run.source, run.summary)
    (run.folder / "results.jsonl").write_text(record_of("a", None, 1.0).to_line() + "\n")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(run, None, None)
    assert [p.name for p in run.folder.glob(".*")] == []


def test_numbers_of_files_to_draw_are_checked(write_run, record_of):
    run = write_run([record_of("a", None, 1.0)])
    with pytest.raises(InputError, match="details is -1"):
        write_report(run, None, None, details=-1)
