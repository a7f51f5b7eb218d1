"""Nobody can compute the noise of a run before it, and everybody with its record can repeat it."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace

import pytest

import nip_audio
from nip_audio.core import seeds
from nip_audio.errors import ResumeError
from nip_audio.screening.pipeline import choose_seed
from nip_audio.screening.sources import FolderSource
from nip_audio.speechbrain.guard import Guard
from nip_audio.speechbrain.guided_purifier import GuidedPurifier


@pytest.fixture(autouse=True)
def drawn(monkeypatch, known_seed) -> None:
    monkeypatch.setattr(seeds, "secrets", secrets)


def test_a_secret_seed_is_new_each_time_and_a_number_of_json():
    found = {seeds.secret_seed() for _ in range(20)}
    assert len(found) == 20
    assert all(0 <= seed < 2**53 for seed in found)
    assert max(found) > 2**40


def test_copies_by_noise_differ_and_their_records_repeat_them(run, folder, tmp_path):
    source = folder / "s0/take10.wav"
    given = ("purify", source, "--method", "noise", "--force", "--out")
    copies, found = [], []
    for name in ("a", "b"):
        code, _, err = run(*given, tmp_path / name)
        assert code == 0, err
        (copy,), (sidecar,) = ((tmp_path / name).glob(f"*.{kind}") for kind in ("wav", "json"))
        copies.append(copy.read_bytes())
        found.append(json.loads(sidecar.read_text())["seed"])
    assert copies[0] != copies[1]
    assert found[0] != found[1]
    run(*given, tmp_path / "c", "--seed", found[1])
    (copy,) = (tmp_path / "c").glob("*.wav")
    assert copy.read_bytes() == copies[1]


def test_detect_draws_in_secret_and_says_the_seed(run, folder, calibration, tmp_path):
    calibration.save(tmp_path / "quick.calibration")
    given = ("detect", folder / "s0/take10.wav", "--calibration", tmp_path / "quick.calibration")
    given += ("--fpr", 0.05, "--json")
    (first,), (second,) = (json.loads(run(*given)[1]) for _ in range(2))
    (again,) = json.loads(run(*given, "--seed", second["seed"])[1])
    assert first["distance"] != second["distance"]
    assert again == second


def test_screen_draws_in_secret_and_a_resumed_run_keeps_its_seed(
    run, folder, calibration, tmp_path
):
    calibration.save(tmp_path / "quick.calibration")
    given = ("screen", folder, "--calibration", tmp_path / "quick.calibration", "--fpr", 0.05)
    given += ("--no-report", "--workers", 1, "--out")
    results = []
    for name in ("a", "b", "b"):
        code, out, _ = run(*given, tmp_path / name)
        assert code in (0, 3)
        seed = json.loads((tmp_path / name / "run.json").read_text())["seed"]
        assert f"seed {seed}" in out
        assert json.loads((tmp_path / name / "summary.json").read_text())["seed"] == seed
        results.append((seed, (tmp_path / name / "results.jsonl").read_bytes()))
    assert results[0][0] != results[1][0]
    assert results[0][1] != results[1][1]
    assert results[1] == results[2]
    run(*given, tmp_path / "c", "--seed", results[1][0])
    assert (tmp_path / "c/results.jsonl").read_bytes() == results[1][1]
    code, _, err = run(*given, tmp_path / "b", "--seed", 1)
    assert code == 65
    assert "another seed" in err


def test_python_draws_in_secret_too(pretrained, folder, calibration, tmp_path):
    path = folder / "s0/take10.wav"
    usual = {"model": pretrained, "calibration": calibration, "fpr": 0.05}
    first, second = (nip_audio.detect(path, **usual)[0].distance for _ in range(2))
    assert first != second
    copies = [nip_audio.purify(path, model=pretrained, method="noise") for _ in range(2)]
    assert not copies[0].samples.equal(copies[1].samples)
    assert copies[0].to_json()["seed"] != copies[1].to_json()["seed"]
    for _ in range(2):  # resumes
        nip_audio.screen(folder, tmp_path / "out", workers=1, report=False, **usual)


def test_guards_draw_in_secret_and_keep_the_seed_of_a_run(
    pretrained, calibration, folder, tmp_path
):
    one, other = (Guard(pretrained, calibration, fpr=0.05) for _ in range(2))
    assert one.screener.seed != other.screener.seed
    out = tmp_path / "out"
    one.screener_of(out).screen(FolderSource(folder), out)
    written = json.loads((out / "run.json").read_text())["seed"]
    assert other.screener_of(out).seed == written
    assert Guard(pretrained, calibration, fpr=0.05, seed=3).screener_of(out).seed == 3
    with pytest.raises(ResumeError, match="another seed"):
        replace(one.screener, seed=3).screen(FolderSource(folder), out)
    purifiers = [GuidedPurifier("resnet34-libri30").seed for _ in range(2)]
    assert purifiers[0] != purifiers[1]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seed": "0"}', '{"seed": true}'])
def test_a_damaged_run_gives_no_seed(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert choose_seed(None, tmp_path) > 2**20
    assert choose_seed(5, tmp_path) == 5
