"""``nip-audio report``, and what ``screen`` writes of itself."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def quick(calibration, tmp_path):
    path = tmp_path / "quick.calibration"
    calibration.save(path)
    return path


@pytest.fixture
def screened(run, folder, quick, tmp_path):
    out = tmp_path / "run"
    run("screen", folder, "--out", out, "-c", quick, "--fpr", "0.05", "--no-report")
    return out


def test_screen_writes_a_page_unless_told_not_to(run, folder, quick, tmp_path, screened):
    assert {p.suffix for p in screened.iterdir()} == {".json", ".jsonl", ".lock"}
    out = tmp_path / "with"
    code, _, _ = run("screen", folder, "--out", out, "-c", quick, "--fpr", "0.05")
    assert code in (0, 3)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("What the verdict rests on</h3>") == page.count("<template id=")
    assert ("<template id=" in page) == (code == 3)
    assert len((out / "results.csv").read_text(encoding="utf-8").splitlines()) == 11
    code, _, _ = run("screen", folder, "--out", out, "-c", quick, "--fpr", "0.05")
    assert code in (0, 3)  # again into the same folder, report and all


def test_report_says_what_it_wrote(run, screened, quick):
    code, out, _ = run("report", screened, "-c", quick, "--details", "1", "--json")
    assert code == 0
    said = json.loads(out)
    summary = json.loads((screened / "summary.json").read_text(encoding="utf-8"))
    assert said["drawn"] == min(1, summary["flagged"])
    assert said["written"] == [str(screened / n) for n in ("report.html", "results.csv")]
    assert summary["calibration"] in (screened / "report.html").read_text(encoding="utf-8")


def test_parquet_is_written_where_it_is_asked_for(run, screened):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    code, out, _ = run("report", screened, "--details", "0", "--parquet")
    assert code == 0
    assert (screened / "results.parquet").exists()
    assert "results.parquet" in out.replace("\n", "")


def test_without_pictures_no_model_is_needed(run, screened):
    summary = json.loads((screened / "summary.json").read_text(encoding="utf-8"))
    (screened / "summary.json").write_text(json.dumps(summary | {"model": "nowhere"}))
    assert run("report", screened, "--details", "0")[0] == 0
    code, _, err = run("report", screened)
    assert (code, "nowhere" in err) == (65, True)


def test_another_calibration_and_no_run_are_refused(run, screened, quick, tmp_path, calibration):
    summary = json.loads((screened / "summary.json").read_text(encoding="utf-8"))
    changed = json.dumps(summary | {"calibration": "0" * 64})
    (screened / "summary.json").write_text(changed)
    code, _, err = run("report", screened, "-c", quick)
    assert (code, "pass --calibration" in err.replace("\n", " ")) == (65, True)
    code, _, err = run("report", tmp_path)
    assert (code, "nip-audio screen wrote" in err.replace("\n", " ")) == (65, True)


def test_a_strangers_run_names_no_source_that_runs_code(run, screened, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    (tmp_path / "planted.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()")
    monkeypatch.syspath_prepend(str(tmp_path))
    summary = json.loads((screened / "summary.json").read_text(encoding="utf-8"))
    changed = json.dumps(summary | {"model": "python:planted:factory"})
    (screened / "summary.json").write_text(changed)
    code, _, err = run("report", screened)
    assert (code, "no model" in err) == (65, True)
    assert not trace.exists()
