from __future__ import annotations

import pytest

from nip_audio.evaluation.defences import NO_DEFENCE
from nip_audio.evaluation.detector_judges import CLEAN_ONLY
from nip_audio.evaluation.sanity import Check
from nip_audio.evaluation.verdicts import (
    REQUIRED,
    check_adaptive,
    check_attacks,
    robust_accuracies,
)


def cell(attack: str, eps: float, fooled: str, **changes: object) -> dict[str, object]:
    return {
        "system": "x",
        "level": "raw",
        "protocol": "unaware",
        "norm": "linf",
        "attack": attack,
        "title": attack,
        "white_box": attack not in ("fakebob", "auna"),
        "eps": eps,
        "fooled": fooled,
        "settings": {"steps": 10, "restarts": 3},
        "attacked_defence": NO_DEFENCE,
        "defences": [{"defence": "noise", "right": "1" * len(fooled)}],
        **changes,
    }


def verdict(checks: list[Check], name: str) -> bool | None:
    (found,) = [c.passed for c in checks if c.name.startswith(name)]
    return found


FAIR = [
    cell("fgsm", 0.002, "1100"),
    cell("pgd", 0.002, "1110"),
    cell("pgd", 0.05, "1111"),
    cell("pgd", 0.002, "1110", settings={"steps": 40}),
    cell("fakebob", 0.002, "1000"),
]


def test_sound_attacks_pass():
    checks = check_attacks(FAIR, "x", "raw")
    assert verdict(checks, "iterated ≥ one step, ε 0.002") is True
    assert verdict(checks, "iterated ≥ one step, ε 0.05") is None
    assert verdict(checks, "more steps change little, ε 0.002") is True
    assert verdict(checks, "success grows with ε") is True
    assert verdict(checks, "a large ε fools all") is True
    assert verdict(checks, "white box ≥ black box, ε 0.002") is True


def test_what_was_not_run_is_not_evaluated():
    checks = check_attacks(FAIR[:2], "x", "raw")
    assert verdict(checks, "a large ε fools all") is None
    assert verdict(checks, "success grows with ε") is None
    assert check_attacks(FAIR, "y", "raw")[0].passed is None


@pytest.mark.parametrize(
    ("replaced", "name"),
    [
        ((4, cell("fakebob", 0.002, "0001")), "white box ≥ black box"),
        ((2, cell("pgd", 0.05, "1101")), "a large ε fools all"),
        ((3, cell("pgd", 0.002, "1111", settings={"steps": 40})), "more steps change little"),
    ],
)
def test_unsound_attacks_are_noticed(replaced, name):
    cells = list(FAIR)
    cells[replaced[0]] = replaced[1]
    assert verdict(check_attacks(cells, "x", "raw"), name) is False


STRONG = [
    cell("pgd-e2e", 0.002, "1000"),
    cell("autoattack", 0.002, "0100"),
    cell("fakebob", 0.002, "0000"),
    cell("pgd", 0.002, "00101", protocol="transfer", source="y"),
]


def test_worst_case_is_over_all_attacks_on_the_shared_clips():
    (row, noise) = robust_accuracies(STRONG, "x", "raw", [])
    assert row["defence"] == NO_DEFENCE
    assert row["survive"] == pytest.approx(0.25)
    assert row["survivors"] == "0001"
    assert row["attacks"] == sorted(REQUIRED)
    assert noise["defence"] == "noise"
    assert noise["survive"] is None  # nobody attacked it knowingly
    assert "pgd-e2e" in noise["why"]


@pytest.mark.parametrize("missing", range(4))
def test_without_one_of_the_strong_attacks_there_is_no_number(missing):
    cells = [c for i, c in enumerate(STRONG) if i != missing]
    row = robust_accuracies(cells, "x", "raw", [])[0]
    assert row["survive"] is None
    assert "a robust accuracy lacks" in row["why"]


def test_a_single_start_is_no_restart():
    cells = [cell("pgd-e2e", 0.002, "1000", settings={"restarts": 1}), *STRONG[1:]]
    assert robust_accuracies(cells, "x", "raw", [])[0]["survive"] is None


def test_a_failed_check_makes_the_number_invalid():
    failed = Check("success grows with ε", False, "")
    row = robust_accuracies(STRONG, "x", "raw", [failed])[0]
    assert row["survive"] is None
    assert row["why"] == "failed sanity checks: success grows with ε"


def test_attacks_on_a_defence_count_for_it():
    through = [
        cell("pgd-e2e", 0.002, "1000", protocol="adaptive", attacked_defence="noise"),
        cell("autoattack", 0.002, "0100", protocol="adaptive", attacked_defence="noise"),
        cell("fakebob", 0.002, "0000", protocol="adaptive", attacked_defence="noise"),
        cell(
            "pgd", 0.002, "1111", protocol="transfer", source="y",
            defences=[{"defence": "noise", "right": "1101"}],
        ),
    ]  # fmt: skip
    row = [r for r in robust_accuracies(through, "x", "raw", []) if r["defence"] == "noise"][0]
    assert row["survivors"] == "0001"


def knowing(fooled: str, unaware_right: str) -> list[dict[str, object]]:
    """Attacks on eight clips: one that knows the noise, and one that does not."""
    behind = [{"defence": "noise", "right": unaware_right}]
    return [
        cell("fgsm", 0.002, "1" * 8, defences=[{"defence": "noise", "right": "1" * 8}]),
        cell("pgd", 0.002, "1" * 8, defences=behind),
        cell("pgd-e2e", 0.002, fooled, protocol="adaptive", attacked_defence="noise", defences=[]),
    ]


@pytest.mark.parametrize(
    ("fooled", "unaware_right", "passed"),
    [
        ("11110000", "11110000", True),  # others are fooled, but as many
        ("00000000", "00011111", True),  # three clips fewer may be chance: p = 1/8
        ("00000000", "00000111", False),  # five are not: p = 1/32
    ],
)
def test_who_knows_a_defence_does_no_worse(fooled, unaware_right, passed):
    check, changed = check_adaptive(knowing(fooled, unaware_right), "x", "raw")["noise"]
    assert (changed.name, changed.passed) == (
        "successes are changed, pgd-e2e, ε 0.002, noise",
        None,
    )
    assert check.name == "knowing ≥ unaware, ε 0.002, noise"
    assert check.passed is passed
    assert "pgd unaware" in check.detail  # the strongest of those who do not know it


def test_without_an_unaware_attack_there_is_nothing_to_compare_with():
    cells = knowing("1" * 8, "1" * 8)[2:]
    check, _ = check_adaptive(cells, "x", "raw")["noise"]
    assert check.passed is None


@pytest.mark.parametrize(
    ("stood", "unchanged", "passed", "detail"),
    [
        ("11110000", 0, True, "0 of 4 left as they were"),
        ("11110000", 3, False, "3 of 4 left as they were"),
        ("00001111", 0, None, "no success"),  # all that is fooled fell by itself
    ],
)
def test_an_attack_that_changes_nothing_has_no_success(stood, unchanged, passed, detail):
    cells = knowing("11110000", "1" * 8)
    cells[2] |= {"stood": stood, "unchanged": unchanged}
    _, changed = check_adaptive(cells, "x", "raw")["noise"]
    assert (changed.passed, changed.detail) == (passed, detail)
    robust = robust_accuracies(cells, "x", "raw", [], by_defence={"noise": [changed]})
    (row,) = [r for r in robust if r["defence"] == "noise"]
    assert row["survive"] is None  # attacks are missing here anyway


def test_attacks_on_a_detector_are_no_attacks_on_a_defence():
    cells = [c | {"attacked_defence": CLEAN_ONLY} for c in knowing("0" * 8, "0" * 8)[2:]]
    assert check_adaptive(cells, "x", "raw") == {}


def test_a_failed_check_on_a_defence_makes_its_number_invalid():
    failed = {"noise": [Check("knowing ≥ unaware", False, "")]}
    through = [c | {"protocol": "adaptive", "attacked_defence": "noise"} for c in STRONG[:3]]
    cells = [*STRONG, *through]
    rows = robust_accuracies(cells, "x", "raw", [], by_defence=failed)
    found = {row["defence"]: row for row in rows}
    assert found[NO_DEFENCE]["survive"] == pytest.approx(0.25)
    assert found["noise"]["survive"] is None
    assert found["noise"]["why"] == "failed sanity checks: knowing ≥ unaware"
