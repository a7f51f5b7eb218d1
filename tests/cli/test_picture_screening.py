"""screen and report on a folder of pictures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from nip_audio.image.adapter import ImageAdapter
from nip_audio.image.datasets import load_images

OF_AUDIO = {"duration_s", "sample_rate_hz", "bandwidth_hz", "consistency", "domain_distance"}


@pytest.fixture(scope="session")
def clean_pictures(tmp_path_factory) -> Path:
    """Forty digits of the calibrate role."""
    folder = tmp_path_factory.mktemp("clean-pictures")
    data = load_images("digits", "calibrate")
    for i in range(40):
        ImageAdapter().save(data.pixels[i], folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def own(run, picture_model, clean_pictures, tmp_path) -> Path:
    path = tmp_path / "own.calibration"
    given = ("calibrate", clean_pictures, "--model", picture_model, "--draws", 1)
    assert run(*given, "--out", path)[0] == 0
    return path


@pytest.fixture
def mixed(pictures, tmp_path) -> Path:
    """Two folders of digits; a copy, no picture, one too small, one distorted, and noise."""
    root = tmp_path / "mixed"
    for i in range(10):
        (root / str(i % 2)).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / f"{i:02d}.png", root / str(i % 2))
    with Image.open(pictures / "00.png") as opened:
        opened.save(root / "1" / "copy.bmp")
        opened.resize((10, 10)).save(root / "1" / "tiny.png")
        opened.resize((90, 30)).save(root / "1" / "wide.png")
    (root / "1" / "bad.jpg").write_bytes(b"no picture")
    (root / "1" / "empty.png").touch()
    noise = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    ImageAdapter().save(noise, root / "0" / "noise.png")
    (root / "readme.txt").write_text("no business of ours")
    return root


@pytest.fixture
def screen(run, picture_model, own, mixed, tmp_path):
    def call(*arguments, out="out", source=mixed):
        given = ("screen", source, "--model", picture_model, "--calibration", own)
        return run(*given, "--out", tmp_path / out, "--fpr", 0.05, "--workers", 1, *arguments)

    return call


def records(out: Path) -> dict[str, dict]:
    lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return {record["id"]: record for record in lines}


def risks(record) -> set[str]:
    return {finding["risk"] for finding in record["findings"]}


def test_every_picture_gets_a_verdict(screen, tmp_path):
    code, text, err = screen("--json")
    assert code == 5, err  # some were flagged, some could not be read
    found = records(tmp_path / "out")
    assert len(found) == 16
    assert found["1/bad.jpg"]["error"]["code"] == "not_a_picture"
    assert found["1/empty.png"]["error"]["code"] == "empty"
    assert found["1/copy.bmp"]["duplicate_of"] == ["0/00.png"]
    assert found["0/00.png"]["duplicate_of"] == ["1/copy.bmp"]
    assert "the same image as" in str(found["0/00.png"]["findings"])
    assert "enlarged 2.8 times" in str(found["1/tiny.png"]["findings"])
    assert "out_of_domain" in risks(found["1/tiny.png"])
    assert "scaled 3.0 times as much" in str(found["1/wide.png"]["findings"])
    assert "adversarial" in risks(found["0/noise.png"])
    assert "noise of" in str(found["0/noise.png"]["findings"])
    assert "in the image" in str(found["0/noise.png"]["findings"])
    clean = found["0/02.png"]
    assert clean["q_value"] is not None
    assert clean["named"] in set("0123456789")
    assert (clean["height"], clean["width"], clean["encoding"]) == (28, 28, "PNG/L")
    for record in found.values():
        assert not OF_AUDIO & record.keys()
        assert "inconsistent" not in risks(record)
    summary = json.loads(text)
    assert summary["read"] == {"channels": 1, "height": 28, "width": 28}
    assert (summary["files"], summary["speakers"]) == (16, 2)
    counted = [record["verdict"] for record in found.values()]
    assert summary["failed"] == counted.count("error") + counted.count("out_of_domain") == 4
    assert summary["flagged"] == 16 - 4 - counted.count("clean")
    assert summary.pop("review")["accepted"] == []
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    folders = (tmp_path / "out/speakers.jsonl").read_text().splitlines()
    assert [json.loads(line)["speaker"] for line in folders] == ["0", "1"]


def test_a_picture_is_judged_in_a_run_as_it_is_alone(run, screen, picture_model, own, mixed):
    screen()
    together = records(own.parent / "out")["0/02.png"]
    odd = ("detect", mixed / "1/tiny.png", "--model", picture_model, "--calibration", own)
    assert run(*odd, "--fpr", 0.05)[0] == 4  # not judged
    given = ("detect", mixed / "0/02.png", "--model", picture_model, "--calibration", own)
    _, text, _ = run(*given, "--fpr", 0.05, "--json")
    (alone,) = json.loads(text)
    assert (alone["distance"], alone["p_value"]) == (together["distance"], together["p_value"])


def test_the_page_shows_pictures_and_no_sound(run, screen, picture_model, own, tmp_path):
    screen()
    page = (tmp_path / "out/report.html").read_text()
    assert '<img class="pixels" src="data:image/png;base64,' in page
    assert "Distance from clean images" in page
    assert "<audio" not in page.split("<script>")[0].split("<template", 1)[1]
    assert "clean audio" not in page
    assert ">Folders<" in page
    rows = list(csv.DictReader((tmp_path / "out/results.csv").read_text("utf-8-sig").splitlines()))
    assert {row["named"] for row in rows} <= {*"0123456789", ""}
    assert not OF_AUDIO & rows[0].keys()
    (tmp_path / "out/report.html").unlink()
    given = ("report", tmp_path / "out", "--model", picture_model, "--calibration", own)
    code, _, _ = run(*given)
    assert code == 0
    assert (tmp_path / "out/report.html").read_text() == page
    code, _, err = run(*given, "--seconds", 3)
    assert code == 65
    assert "got --seconds" in err


def test_an_interrupted_run_goes_on(screen, mixed, tmp_path):
    screen(out="whole")
    screen("--no-report", out="cut")
    journal = tmp_path / "cut/measured.jsonl"
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    (tmp_path / "cut/results.jsonl").unlink()
    screen("--no-report", out="cut")
    assert journal.read_bytes() == content
    for name in ("results.jsonl", "speakers.jsonl", "summary.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # at another rate nothing is measured again
    screen("--no-report", "--fdr", 0.2, out="cut")
    assert journal.read_bytes() == content


def test_workers_find_the_same(screen, tmp_path):
    screen("--no-report", out="one")
    screen("--no-report", "--workers", 2, out="two")
    for name in ("measured.jsonl", "results.jsonl", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_triggers_are_looked_for_on_demand(screen, tmp_path):
    _, text, _ = screen("--backdoor", "--no-report", "--json")
    assert "not judged: the model predicts" in json.loads(text)["backdoor"]
    code, _, err = screen("--no-report")
    assert code == 65  # the run is one with triggers
    assert "triggers" in err


def test_flagged_pictures_are_purified(run, pictures, mixed, tmp_path):
    given = ("screen", mixed, "--model", "lenet5-mnist", "--out", tmp_path / "out")
    options = ("--workers", 1, "--purify-flagged", tmp_path / "purified", "--json")
    code, text, err = run(*given, *options)
    assert code == 5
    flagged = json.loads(text)["verdicts"]["adversarial"]
    assert flagged >= 1
    written = sorted((tmp_path / "purified").rglob("*.png"))
    assert len(written) == flagged
    sidecar = json.loads((tmp_path / "purified/0/noise.json").read_text())
    assert sidecar["by"]["name"] == "guided"
    assert f"{flagged} purified copies" in err
    before = [path.stat().st_mtime_ns for path in written]
    run(*given, *options)
    assert [path.stat().st_mtime_ns for path in written] == before


def test_a_model_without_a_purifier_purifies_nothing(screen, tmp_path):
    code, _, err = screen("--purify-flagged", tmp_path / "purified", "--no-report")
    assert code == 65
    assert "without a purifier" in err.replace("\n", " ")


@pytest.mark.parametrize("option", ["--max-duration", "--data-root"])
def test_an_option_of_audio_is_refused(screen, tmp_path, option):
    code, _, err = screen(option, "5")
    assert code == 65
    assert option in err
    assert not (tmp_path / "out/measured.jsonl").exists()


def test_what_is_no_folder_of_pictures_is_refused(screen, tmp_path):
    (tmp_path / "list.csv").write_text("ID,wav\na,a.png\n")
    code, _, err = screen(source=tmp_path / "list.csv")
    assert code == 65
    assert "images come as a folder" in err
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.wav").touch()
    code, _, err = screen(source=tmp_path / "none")
    assert code == 65
    assert "found no image in" in err


def test_links_lead_nowhere_unless_asked(screen, pictures, mixed, tmp_path):
    (mixed / "1" / "link.png").symlink_to(pictures / "15.png")
    screen("--no-report", out="fenced")
    assert records(tmp_path / "fenced")["1/link.png"]["error"]["code"] == "outside"
    screen("--no-report", "--follow-links", out="open")
    assert records(tmp_path / "open")["1/link.png"]["error"] is None
