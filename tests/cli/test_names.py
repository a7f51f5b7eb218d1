"""Names of files and speakers come from strangers: a terminal shows them, and obeys none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from nip_audio.cli import _console

HOSTILE = "a\x1b]0;owned\x07\nall clean\r\u202e.wav"
_CLI = Path(_console.__file__).parent


@pytest.fixture
def hostile(clean_folder, tmp_path) -> Path:
    """A speaker and recordings with such names, one of which cannot be read."""
    folder = tmp_path / "voices" / "s\x1b[31m\nann"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(clean_folder.rglob("*.wav"))[:2]):
        shutil.copy(path, folder / f"{number}{HOSTILE}")
    (folder / f"bad{HOSTILE}").write_text("no audio")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "enroll VOICES --out OUT/x.enrolment",
        "identify GOOD BAD --model xvector-libri251",
        "identify GOOD BAD --model xvector-libri251 --enrolment ENROLMENT --threshold 0.9",
        "verify GOOD --speaker s1 --enrolment ENROLMENT --threshold 0.5",
        "verify BAD --speaker s1 --enrolment ENROLMENT --threshold 0.5",
        "purify GOOD BAD --method noise --out OUT/purified",
        "attack GOOD BAD --threshold 0.5 --set steps=1 --out OUT/attacked",
        "robustness xvector-libri251 --data VOICES --draws 1",
        "detect GOOD BAD",
        "screen VOICES --out OUT/report --no-report",
        "calibrate VOICES --clean-only --out OUT/BAD",
        "detect GOOD BAD --\x1b[31mopt",
    ],
)
def test_no_name_reaches_the_terminal_as_it_is(run, hostile, enrolled_voices, tmp_path, command):
    (tmp_path / "out").mkdir()
    places = {
        "VOICES": hostile.parent,
        "GOOD": hostile / f"0{HOSTILE}",
        "BAD": hostile / f"bad{HOSTILE}",
        "OUT": tmp_path / "out",
        "ENROLMENT": enrolled_voices,
    }
    arguments = [
        re.sub("|".join(places), lambda name: str(places[name[0]]), word)
        for word in command.split(" ")
    ]
    code, out, err = run(*arguments)
    assert code in (0, 3, 4, 5, 64, 65), err
    shown = out + err
    assert "\\x1b" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    assert not re.search("^all clean", shown, re.MULTILINE)


def test_plain_lines_are_printed_in_one_place():
    elsewhere = [
        path.name
        for path in _CLI.glob("*.py")
        if path.name != "_console.py" and "markup=False" in path.read_text(encoding="utf-8")
    ]
    assert elsewhere == []


def test_tables_and_texts_show_what_they_do_not_obey(capsys):
    _console.stdout.print("[bold]one\x1b[2J[/]\ntwo")
    assert capsys.readouterr().out == "one\\x1b[2J\ntwo\n"
