from __future__ import annotations

import numpy as np
import pytest

from nip_audio.errors import InputError
from nip_audio.evaluation.statistics import paired_t_test, proportion, spearman


def test_speakers_are_resampled_not_clips():
    """Clips of one speaker that all agree carry no more than one of them."""
    hits = np.repeat([True, False] * 10, 10)
    groups = [f"s{i // 10}" for i in range(200)]
    wide = proportion(hits, groups, seed=0)
    narrow = proportion(hits, [str(i) for i in range(200)], seed=0)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("hit", "low", "high"), [(True, 0.8316, 1.0), (False, 0.0, 0.1684)])
def test_where_all_agree_the_binomial_gives_the_interval(hit, low, high):
    found = proportion(np.full(20, hit), ["a"] * 20, seed=0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)  # Clopper–Pearson


@pytest.mark.parametrize(
    ("hits", "groups"),
    [([True, False], ["a", "a"]), ([True, False] * 2, ["a", "a", "b", "b"])],
    ids=["one speaker", "speakers alike"],
)
def test_where_resamples_agree_the_binomial_gives_the_interval(hits, groups):
    found = proportion(np.array(hits), groups, seed=0)
    # Clopper–Pearson of 1 in 2 is 1.3–98.7 %, of 2 in 4 6.8–93.2 %
    low = {2: 0.0126, 4: 0.0676}[len(hits)]
    assert (found.low, found.value, found.high) == pytest.approx((low, 0.5, 1 - low), abs=1e-3)


def test_nothing_to_average_is_an_error():
    with pytest.raises(InputError, match="got 0 successes"):
        proportion(np.array([], dtype=bool), [], seed=0)
    with pytest.raises(InputError, match="got 2 successes of 1 items"):
        proportion(np.array([True, False]), ["a"], seed=0)


def test_paired_t_test_is_the_textbooks():
    a, b = [2.0, 4.0, 6.0, 9.0], [1.0, 2.0, 3.0, 4.0]
    # differences 1, 2, 3, 5: mean 2.75, standard error 0.85391, t = 3.2205, 3 degrees of freedom
    t, p = paired_t_test(a, b)
    assert t == pytest.approx(3.2205, abs=1e-3)
    assert p == pytest.approx(0.0485, abs=1e-3)
    with pytest.raises(InputError, match="all differences are equal"):
        paired_t_test([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="at least 2 pairs"):
        paired_t_test([1.0], [2.0])


def test_spearman_goes_by_ranks():
    rho, p = spearman([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 8.0, 27.0, 64.0, 125.0])
    assert rho == pytest.approx(1.0)
    assert p < 0.02
    with pytest.raises(InputError, match="at least 3 pairs"):
        spearman([1.0, 2.0], [2.0, 1.0])
    with pytest.raises(InputError, match="values on one side are equal"):
        spearman([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])


@pytest.mark.parametrize("compare", [paired_t_test, spearman])
def test_a_cell_without_a_value_is_an_error(compare):
    with pytest.raises(InputError, match="NaN or infinite"):
        compare([1.0, float("nan"), 3.0], [2.0, 5.0, 4.0])
