"""Settings of attacks and purifiers, which the commands take and list."""

from __future__ import annotations

import json

import pytest

from nip_audio.attacks.registry import ATTACKS, make_attack
from nip_audio.cli._settings import read_settings
from nip_audio.cli.attack import settings_of as attack_settings
from nip_audio.cli.purify import settings_of as purifier_settings
from nip_audio.purifiers.registry import PURIFIERS


@pytest.mark.parametrize("name", ATTACKS)
def test_every_setting_of_an_attack_can_be_given_as_it_is_listed(name):
    settings = attack_settings(name)
    assert {one.name for one in settings} == set(ATTACKS[name].settings) - {"eps"}
    assert all(one.text.endswith(".") for one in settings)
    given = [f"{one.name}={one.shown_default}" for one in settings]
    eps = 0.01 if "eps" in ATTACKS[name].settings else None
    level = ATTACKS[name].levels[0]
    values = read_settings(given, settings, name)
    assert make_attack(name, eps=eps, level=level, settings=values) == make_attack(
        name, eps=eps, level=level
    )


@pytest.mark.parametrize("name", PURIFIERS)
def test_every_setting_of_a_purifier_can_be_given_as_it_is_listed(name):
    settings = purifier_settings(name)
    assert {one.name for one in settings} == set(PURIFIERS[name].settings) - {"path"}
    assert all(one.text.endswith(".") for one in settings)
    given = [f"{one.name}={one.shown_default}" for one in settings if one.shown_default]
    values = read_settings(given, settings, name)
    for one in settings:
        if isinstance(one.default, float):  # six digits are listed
            assert values[one.name] == pytest.approx(one.default, rel=1e-5)
        elif one.shown_default:
            assert values[one.name] == one.default


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("attack", "--show-settings"), ("Settings of pgd", "step_share")),
        (("attack", "--show-settings", "-a", "fakebob"), ("Settings of fakebob", "sigma")),
        (("purify", "--method", "tvm", "--show-settings"), ("Settings of tvm", "weight")),
        (("purify", "--show-settings"), ("guided has no settings",)),
    ],
)
def test_settings_are_listed(run, arguments, named):
    code, out, _ = run(*arguments)
    assert code == 0
    assert [name for name in named if name not in out] == []


def test_settings_of_an_unknown_attack_are_an_error(run):
    code, _, err = run("attack", "--show-settings", "-a", "pdg")
    assert code == 65
    assert "did you mean pgd" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--set", "step=3"], "pgd has no setting step; did you mean steps"),
        (["--set", "steps=3.5"], "steps is '3.5', expected a whole number; write --set steps=10"),
        (["--set", "eps=0.1"], "pass it as --eps"),
        (["--set", "steps"], "expected key=value; write both, e.g. --set steps=10"),
        (["--attack", "pgd", "--queries", "5"], "pgd has no setting queries"),
    ],
)
def test_senseless_settings_are_refused(run, clean_folder, tmp_path, options, text):
    file = next(clean_folder.rglob("*.wav"))
    code, _, err = run("attack", file, "--out", tmp_path / "out", *options)
    assert code == 65
    assert text in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_attack_in_either_form(run, clean_folder, tmp_path):
    file = next(clean_folder.rglob("*.wav"))
    arguments = ("attack", file, "--threshold", 0.5, "--json", "--out")
    code, out, err = run(*arguments, tmp_path / "new", "--set", "steps=2", "--set", "step_share=1")
    assert code == 0
    assert "note:" not in err
    (written,) = json.loads(out)["written"]
    assert (written["attack"]["steps"], written["attack"]["step_share"]) == (2, 1.0)
    code, out, err = run(*arguments, tmp_path / "former", "--steps", 2)
    assert code == 0
    assert "--steps is an option of version 0.1" in err
    assert json.loads(out)["written"][0]["attack"]["steps"] == 2
