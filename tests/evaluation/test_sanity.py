from __future__ import annotations

import numpy as np
import pytest

from nip_audio.errors import InputError
from nip_audio.evaluation.sanity import (
    grows_with_eps,
    iterated_at_least_one_step,
    more_steps_change_little,
    no_randomness,
    no_zero_gradients,
    reaches_all,
    white_at_least_black,
    worst_case,
)


def hits(count: int, of: int = 40, first: int = 0) -> np.ndarray:
    out = np.zeros(of, dtype=bool)
    out[first : first + count] = True
    return out


def test_iterated_attack_that_loses_items_is_noticed():
    assert iterated_at_least_one_step(hits(20), hits(30)).passed
    assert iterated_at_least_one_step(hits(20), hits(20)).passed
    # three lost, none won: p = 1/8, chance may give that; ten lost: p < 0.001
    assert iterated_at_least_one_step(hits(20), hits(17)).passed
    found = iterated_at_least_one_step(hits(20), hits(10))
    assert found.passed is False
    assert "iterated 25.0%, one step 50.0% of 40" in found.detail
    # as many, but other items: five lost and five won
    assert iterated_at_least_one_step(hits(20), hits(20, first=5)).passed


def test_only_shared_items_are_compared():
    assert iterated_at_least_one_step(hits(5, of=10), hits(5, of=40)).detail.endswith("of 10")


def test_success_has_to_grow_with_eps():
    assert grows_with_eps({0.01: hits(30), 0.001: hits(10)}).passed
    found = grows_with_eps({0.01: hits(10), 0.001: hits(30)})
    assert found.passed is False
    assert "ε 0.01 25.0%, ε 0.001 75.0%" in found.detail
    assert grows_with_eps({0.01: hits(10)}).passed is None


def test_a_large_eps_has_to_fool_all():
    assert reaches_all(hits(40), 0.05).passed
    assert reaches_all(hits(38), 0.05).passed is False
    assert reaches_all(None, None).passed is None


def test_more_steps_may_add_little_and_lose_nothing():
    assert more_steps_change_little(hits(30), hits(33)).passed
    assert more_steps_change_little(hits(30), hits(36)).passed is False
    assert more_steps_change_little(hits(30), hits(15)).passed is False
    assert more_steps_change_little(hits(30), None).passed is None


def test_black_box_may_not_fool_what_no_white_box_does():
    assert white_at_least_black(hits(30), {"boundary": hits(30)}).passed
    assert white_at_least_black(hits(30), {"a": hits(2, first=29)}).passed  # one of 40
    found = white_at_least_black(hits(30), {"a": hits(30), "square": hits(10, first=30)})
    assert found.passed is False
    assert "square alone 25.0%" in found.detail
    assert white_at_least_black(hits(30), {}).passed is None


def test_zero_gradients_and_randomness():
    assert no_zero_gradients(hits(4)).passed
    assert no_zero_gradients(hits(5)).passed is False
    scores = np.array([[0.1, 0.2]])
    assert no_randomness(scores, scores + 1e-7).passed
    assert no_randomness(scores, scores + 1e-3).passed is False


def test_worst_case_is_any_of_all_that_are_required():
    fooled = {"pgd": hits(10), "fakebob": hits(5, first=20)}
    assert worst_case(fooled, required={"pgd": "gradients"}).sum() == 15
    with pytest.raises(InputError, match=r"lacks autoattack \(adaptive steps\)"):
        worst_case(fooled, required={"autoattack": "adaptive steps"})
    with pytest.raises(InputError, match="different numbers of items"):
        worst_case({"pgd": hits(3), "b": hits(3, of=30)}, required={})


def test_no_items_pass_no_check():
    none = hits(0, of=0)
    for check in (
        iterated_at_least_one_step(none, none),
        iterated_at_least_one_step(none, hits(5)),
        grows_with_eps({0.1: none, 0.2: none}),
        reaches_all(none, 0.1),
        more_steps_change_little(none, none),
        white_at_least_black(none, {"a": none}),
        white_at_least_black(hits(5), {"a": hits(5), "b": none}),
        no_zero_gradients(none),
        no_randomness(np.zeros((0, 3)), np.zeros((0, 3))),
    ):
        assert check.passed is None
