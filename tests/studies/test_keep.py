"""Results of some systems, kept beside those of the others."""

from __future__ import annotations

import json

import pytest

from nip_audio.errors import InputError
from studies.attacks.collect_sets import others
from studies.keep import merged


def results(torch: str, **successes: int) -> dict:
    return {
        "title": "Attacks",
        "seed": 1,
        "split_sha256": "ab",
        "nip_audio": "0.1.0",
        "versions": {"torch": torch},
        "machine": "x86_64",
        "threads": 1,
        "systems": {name: {"model_id": f"{name} {torch}"} for name in successes},
        "cells": [{"system": name, "successes": count} for name, count in successes.items()],
        "unfinished": [],
        "controls": [],
        "checks": [{"system": name, "passed": True} for name in successes],
        "robust": [],
    }


def test_a_system_is_replaced_and_the_others_stay_as_they_were():
    found = merged(results("2.11", one=1, two=2, three=3), results("2.14", two=20))
    assert [cell["successes"] for cell in found["cells"]] == [1, 20, 3]
    assert [check["system"] for check in found["checks"]] == ["one", "two", "three"]
    assert list(found["systems"]) == ["one", "two", "three"]
    assert found["systems"]["two"] == {"model_id": "two 2.14"}
    assert found["systems"]["one"]["versions"] == {"torch": "2.11"}
    assert found["versions"] == {"torch": "2.14"}
    again = merged(found, results("2.15", three=30))  # one keeps the versions that it was made with
    torch = {n: {**again, **s}["versions"]["torch"] for n, s in again["systems"].items()}
    assert torch == {"one": "2.11", "two": "2.14", "three": "2.15"}


def test_a_system_that_was_not_measured_before_is_added():
    found = merged(results("2.14", one=1), results("2.14", two=2))
    assert [cell["system"] for cell in found["cells"]] == ["one", "two"]
    assert found["systems"]["one"] == {"model_id": "one 2.14"}


@pytest.mark.parametrize("key", ["title", "seed", "split_sha256"])
def test_parts_of_different_evaluations_are_refused(key):
    with pytest.raises(InputError, match=f"{key} is .* they are of different evaluations"):
        merged(results("2.14", one=1), results("2.14", two=2) | {key: "another"})


def test_the_sets_of_other_systems_stay_listed(tmp_path):
    lines = [
        {"system": "one", "clips": ["a"]},
        {"set": "one-fgsm"},
        {"system": "two", "clips": ["b"]},
        {"set": "two-fgsm"},
    ]
    path = tmp_path / "sets.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert others(path, ["one"]) == lines[2:]
    assert others(path, ["two"]) == lines[:2]
    assert others(tmp_path / "none.jsonl", ["one"]) == []
