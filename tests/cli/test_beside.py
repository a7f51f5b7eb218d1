"""Files of the working directory do not decide what a command does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nip_audio.cli._commands import COMMANDS
from nip_audio.cli._exit import EXIT_REFUSED, EXIT_USAGE

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "examples/enrolment/alba/alba-1.flac"
NAME = "xvector-libri251"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("word", ["--calibration=.lax", "--force", "-o"])
def test_an_option_that_is_also_a_file_is_refused(run, here, command, word):
    (here / word).touch()
    code, out, err = run(command, word)
    assert (code, out) == (EXIT_REFUSED, "")
    assert f"{word} is an option and also a file" in err
    assert f"write ./{word}" in err


def test_before_the_command_it_is_refused_too(run, here):
    (here / "--version").symlink_to("nowhere")
    assert run("--version")[0] == EXIT_REFUSED


def test_behind_two_dashes_it_is_a_file(run, here):
    shutil.copy(RECORDING, here / "--json")
    code, out, err = run("detect", "--", "--json")
    assert code == 0, err
    assert "--json" in out


def test_a_leading_path_names_the_file(run, here):
    shutil.copy(RECORDING, here / "--force")
    code, out, _ = run("detect", "./--force", "--json")
    (record,) = json.loads(out)
    assert (code, record["id"]) == (0, "--force")


def test_an_option_is_no_file_of_another_folder(run, here):
    (here / "sub").mkdir()
    (here / "sub/--no-such-option").touch()
    code, _, err = run("detect", "--no-such-option")
    assert code == EXIT_USAGE
    assert "No such option" in err


def test_settings_of_numba_are_refused(run, here):
    (here / ".numba_config.yaml").write_text("cache_dir: planted")
    code, _, err = run("models")
    assert code == EXIT_REFUSED
    assert "the working directory holds .numba_config.yaml" in err


def test_who_judged_is_said_and_written(run, here):
    (here / "voices/alba").mkdir(parents=True)
    shutil.copy(RECORDING, here / "voices/alba")
    lax = shutil.copytree(ROOT / "pretrained" / NAME, here / NAME)
    card = json.loads((lax / "model_card.json").read_text())
    card["metrics"] = {}
    (lax / "model_card.json").write_text(json.dumps(card))
    said, written = [], []
    for out, model in (("first", NAME), ("second", f"./{NAME}")):
        code, text, err = run("screen", "voices", "--out", out, "--model", model, "--no-report")
        assert code == 0, err
        said.append(next(line for line in text.splitlines() if line.startswith("Judged by")))
        run_, summary = (
            json.loads((here / out / f"{n}.json").read_text()) for n in ("run", "summary")
        )
        names = {"card", "calibration", "model_id", "purifier"}
        assert {n: run_[n] for n in names} == {n: summary[n] for n in names}
        written.append(run_)
    assert "as shipped with nip-audio" in said[0]
    assert f"card {written[1]['card'][:12]}" in said[1]
    assert all(
        f"calibration {w['calibration'][:12]}" in s for s, w in zip(said, written, strict=True)
    )
    assert written[0]["card"] != written[1]["card"]
