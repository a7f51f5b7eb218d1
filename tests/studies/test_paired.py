"""Paired tests over attacks."""

import pytest
from scipy.stats import ttest_rel

from studies._lib.paired import paired_tests

CELLS = [
    {"ours": 0.9, "noise": 0.5, "smoothing": 0.8},
    {"ours": 0.8, "noise": 0.1, "smoothing": 0.9},
    {"ours": 0.7, "noise": 0.2},
]


def test_each_defence_is_compared_on_the_attacks_that_both_have():
    smoothing, noise = paired_tests(CELLS, "ours")
    assert (noise.other, noise.attacks, noise.ahead) == ("noise", 3, 3)
    assert noise.lead == pytest.approx((0.4 + 0.7 + 0.5) / 3)
    assert noise.p == pytest.approx(ttest_rel([0.9, 0.8, 0.7], [0.5, 0.1, 0.2]).pvalue)
    assert (smoothing.attacks, smoothing.ahead) == (2, 1)
    assert smoothing.lead == pytest.approx(0.0)


def test_equal_differences_have_no_p_value():
    (same,) = paired_tests([{"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 0.5}], "a")
    assert same.p is None
    assert same.lead == pytest.approx(0.25)


def test_one_attack_is_no_pair():
    assert paired_tests([{"a": 0.5, "b": 0.2}], "a") == []
    assert paired_tests(CELLS, "ours", ["gone"]) == []
