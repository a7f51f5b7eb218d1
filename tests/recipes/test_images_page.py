"""The page on pictures says what is not evaluated, and fills every part of its template."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from nip_audio.evaluation.image_systems import ImageAttackPlan

RECIPES = Path(__file__).parents[2] / "recipes"

RESULTS = {
    "robustness": {
        "ranked": [
            {
                "rank": 1,
                "model": "Madry",
                "mean": {"value": 0.1, "low": 0.05, "high": 0.2},
                "p_next": None,
            }
        ],
        "accuracy": {
            "Madry": {
                kind: {"value": 0.9, "low": 0.8, "high": 1.0} for kind in ("clean", "noise", "pgd")
            }
        },
    }
}


def test_every_part_is_filled(load_script, tmp_path, monkeypatch):
    page = load_script("images/write_images_page.py")
    source, target = tmp_path / "images.json", tmp_path / "images.md"
    source.write_text(json.dumps(RESULTS))
    monkeypatch.setattr(sys, "argv", ["write", str(source), str(target)])
    page.main()
    text = target.read_text(encoding="utf-8")
    assert not re.findall(r"\{\w+\}", text)
    assert "not evaluated" in text
    assert "| 1 | Madry | 0.1000 [0.0500, 0.2000] | 90.0 [80.0, 100.0] |" in text
    assert "lenet5-mnist" in text


def test_results_of_other_studies_stay(load_script, tmp_path):
    results = load_script("images/results.py")
    path = tmp_path / "images.json"
    results.add_result(path, ["detection", "mnist"], {"a": 1 / 3})
    results.add_result(path, ["detection", "cifar10"], [0.123456789])
    found = json.loads(path.read_text())
    assert found == {"detection": {"mnist": {"a": 0.33333}, "cifar10": [0.12346]}}


@pytest.mark.parametrize("name", ["detection", "nip", "limits"])
def test_every_planned_attack_can_be_made(name):
    plan = yaml.safe_load((RECIPES / "images" / f"{name}.yaml").read_text(encoding="utf-8"))
    for system in plan["systems"].values():
        own = [one for plans in system.get("own", {}).values() for one in plans]
        parts = ("attacks", "spatial", "elasticity")
        for one in (*own, *(one for part in parts for one in system.get(part, ()))):
            assert ImageAttackPlan.from_json(one).attacks()
