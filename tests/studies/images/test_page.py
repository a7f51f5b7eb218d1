"""The page on images says what is not evaluated, and fills every part of its template."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from studies._lib.attacks import attacks_of, image_attack
from studies._lib.command import add_result
from studies._lib.records import read_record
from studies.images import page
from studies.images.purification import GUIDED, ORACLE
from studies.images.results import ImageResults

PLANS = Path(__file__).parents[3] / "studies" / "images"

RESULTS = {
    "robustness": {
        "mnist": {
            "images": 9,
            "seed": 1,
            "ranked": [
                {
                    "rank": 1,
                    "model": "Madry",
                    "quartiles": [0.1, 0.1, 0.1],
                    "mean": {"value": 0.1, "low": 0.05, "high": 0.2},
                    "p_next": None,
                }
            ],
            "accuracy": {
                "Madry": {
                    kind: {"value": 0.9, "low": 0.8, "high": 1.0}
                    for kind in ("clean", "noise", "pgd")
                }
            },
        }
    }
}


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def cell(title: str, attempts: int, examples: int, **attack: object) -> dict[str, object]:
    dsr = {d: share(0.25) for d in (GUIDED, ORACLE)}
    return {
        **{"name": title, "attempts": attempts, "examples": examples, "dsr": dsr},
        "attack": attack,
    }


STUDY = {
    "model": "lenet5-mnist",
    "seed": 1,
    "benign": {"images": 50, "undefended": share(0.99), "behind": {GUIDED: share(0.98)}},
}
LIMITS = {
    "spatial": {
        "mnist": {
            **STUDY,
            "cells": [
                cell("spatial", 90, 60, keep=k, degrees=30.0, pixels=2.8)
                for k in ("worst", "least")
            ],
            "at_random": {"images": 90, "accuracy": share(0.95)},
            "detection": {
                "spatial, worst": {
                    **{"images": 60, "clean": 300, "auroc": share(0.9)},
                    "flagged": {"0.05": share(0.4), "0.01": share(0.2)},
                    "false_positives": {"0.05": share(0.04), "0.01": share(0.01)},
                }
            },
        }
    },
    "elasticity": {
        "mnist": {
            **STUDY,
            "cells": [
                cell("pgd-l2 0.5", 90, 7, name="pgd-l2", eps=0.5, steps=20),
                cell("pgd-l2 2", 90, 80, name="pgd-l2", eps=2.0, steps=20),
            ],
        }
    },
    "remote": {
        "mnist": {
            "own": {
                **{"served": "lenet5-mnist", "seed": 1, "recipe": "x", "agreement_held_out": 0.9},
                **{"network": "LeNet-4", "queries": 500, "requests": 10},
                **{"agreement": 0.95, "agreement_images": 1000, "queries_measuring": 9000},
                **{"substitute_right": 0.94, "remote_right": 0.99},
                "benign": STUDY["benign"],
                "white_box": [cell("pgd 0.2", 90, 80)],
                "transferred": [cell("fgsm 0.2", 90, 10)],
            }
        }
    },
}


def test_limits_and_black_box_are_written_and_small_counts_give_no_rate():
    results = read_record(ImageResults, LIMITS)
    spatial = page.each_set(results.spatial, tuple(page.SETS), page.spatial)
    assert "worst: DSR, % (60 of 90 fool)" in spatial
    assert "| guided NIP | 98.0 [98.0, 98.0] | 25.0 [25.0, 25.0] | 25.0 [25.0, 25.0] |" in spatial
    assert "CIFAR-10: not evaluated" in spatial
    assert "| MNIST | spatial, worst | 60 | 300 | 0.900 [0.900, 0.900] |" in page.spatial_detection(
        results
    )
    elastic = page.each_set(results.elasticity, ("mnist",), page.elasticity)
    assert "| defence | 2 (80 of 90) |" in elastic
    assert "Too few fool for a rate at: 0.5 (7)." in elastic
    remote = page.remote(results)
    assert "| LeNet-4 | 500 | 10 | 95.0 | 94.0 | 99.0 |" in remote
    assert "| purifier | benign, % | white box, pgd 0.2 (80 of 90) |" in remote
    assert "Too few fool for a rate: transferred, fgsm 0.2 (10 of 90)." in remote


def test_every_part_is_filled():
    text = page.PAGE.made_from({"images": RESULTS}, partial=True)
    assert not re.findall(r"\{\w+\}", text)
    assert "not evaluated" in text
    assert "| 1 | Madry | 0.1000 [0.0500, 0.2000] | 90.0 [80.0, 100.0] |" in text
    assert "lenet5-mnist" in text


def test_results_of_other_studies_stay(tmp_path):
    path = tmp_path / "images.json"
    add_result(path, ["detection", "mnist"], {"a": 1 / 3})
    add_result(path, ["detection", "cifar10"], [0.123456789])
    found = json.loads(path.read_text())
    assert found == {"detection": {"mnist": {"a": 0.33333}, "cifar10": [0.12346]}}


@pytest.mark.parametrize("name", ["detection", "nip", "limits", "remote"])
def test_every_planned_attack_can_be_made(name):
    plan = yaml.safe_load((PLANS / f"{name}.yaml").read_text(encoding="utf-8"))
    for system in plan["systems"].values():
        own = [one for plans in system.get("own", {}).values() for one in plans]
        parts = ("attacks", "spatial", "elasticity", "transferred")
        for one in (*own, *(one for part in parts for one in system.get(part, ()))):
            assert list(attacks_of(image_attack(one)))
