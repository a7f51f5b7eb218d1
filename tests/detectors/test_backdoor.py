from __future__ import annotations

import numpy as np
import pytest

from nip_audio.detectors.backdoor import BackdoorGroups, PublishedClusters, kinds_among
from nip_audio.errors import InputError

FEATURES = 12


def clean_set(seed, *, groups=12, files=30):
    """Groups with centres of their own and scatter alike."""
    rng = np.random.default_rng(seed)
    centres = 5 * rng.standard_normal((groups, FEATURES))
    rows = np.concatenate([c + rng.standard_normal((files, FEATURES)) for c in centres])
    return rows, [f"s{g}" for g in range(groups) for _ in range(files)]


def seconds_of(names, poisoned=None):
    """Second names: the next speaker's, and of poisoned files anybody's."""
    many = np.random.default_rng(9).integers(0, 12, len(names))
    bad = np.zeros(len(names)) if poisoned is None else poisoned
    return [f"s{many[i]}" if bad[i] else f"{name}'s twin" for i, name in enumerate(names)]


def poisoned_set(seed):
    """As above, and 40 rows of many origins under the first name."""
    rows, names = clean_set(seed)
    rng = np.random.default_rng(seed + 1)
    shift = np.zeros(FEATURES)
    shift[:3] = 12.0
    bad = rows[:30].mean(axis=0) + shift + 2.5 * rng.standard_normal((40, FEATURES))
    return np.concatenate([rows, bad]), [*names, *["s0"] * 40], np.r_[np.zeros(360), np.ones(40)]


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_is_not_accused(seed):
    rows, names = clean_set(seed)
    detector = BackdoorGroups().fit(rows, groups=names, seconds=seconds_of(names))
    assert not detector.accused_.any()
    assert not any(finding.accused for finding in detector.findings_)
    assert len(detector.findings_) == 12


@pytest.mark.parametrize("seed", range(5))
def test_the_poisoned_files_are_accused_and_no_others(seed):
    rows, names, poisoned = poisoned_set(seed)
    seconds = seconds_of(names, poisoned)
    detector = BackdoorGroups().fit(rows, groups=names, seconds=seconds)
    assert detector.findings_[0].name == "s0"
    assert [f.name for f in detector.findings_ if f.accused] == ["s0"]
    wrong = detector.accused_ != poisoned.astype(bool)
    assert wrong.sum() <= 1
    assert detector.findings_[0].suspects == detector.accused_.sum()
    assert detector.suspicion_[30:360].max() == 0


def test_long_sides_lie_beside_each_other_where_their_scatter_is_equal():
    rows, names = clean_set(3)
    rng = np.random.default_rng(4)
    long = np.ones(FEATURES)
    long[0] = 3.0
    shift = np.zeros(FEATURES)
    shift[1] = 4.0
    centre = rows[:30].mean(axis=0)
    rows[:30] = centre + long * rng.standard_normal((30, FEATURES))
    bad = centre + shift + long * rng.standard_normal((40, FEATURES))
    poisoned = np.r_[np.zeros(360), np.ones(40)]
    rows, names = np.concatenate([rows, bad]), [*names, *["s0"] * 40]
    seconds = seconds_of(names, poisoned)

    def wrong(sides):
        detector = BackdoorGroups(sides=sides).fit(rows, groups=names, seconds=seconds)
        return int((detector.accused_ != poisoned.astype(bool)).sum())

    assert wrong("tied") <= 5
    assert wrong("spherical") > 20


def test_order_and_scale_change_nothing():
    rows, names, poisoned = poisoned_set(3)
    seconds = seconds_of(names, poisoned)
    scaled = rows * np.linspace(0.1, 10, FEATURES)
    order = np.random.default_rng(0).permutation(len(rows))
    first = BackdoorGroups().fit(rows, groups=names, seconds=seconds)
    turned = {"groups": [names[i] for i in order], "seconds": [seconds[i] for i in order]}
    second = BackdoorGroups().fit(scaled[order], **turned)
    assert np.array_equal(first.accused_[order], second.accused_)


def test_small_groups_are_not_judged():
    rows, names = clean_set(0)
    rows = np.concatenate([rows, 100 + np.zeros((5, FEATURES))])
    groups = [*names, *["few"] * 5]
    detector = BackdoorGroups().fit(rows, groups=groups, seconds=seconds_of(groups))
    assert "few" not in {finding.name for finding in detector.findings_}
    assert detector.suspicion_[-5:].tolist() == [0.0] * 5


def test_too_few_groups_are_refused():
    rows, names = clean_set(0, groups=4)
    with pytest.raises(InputError, match=r"4 names .* expected 8 such names or more"):
        BackdoorGroups().fit(rows, groups=names, seconds=seconds_of(names))


def test_rows_and_groups_must_fit():
    rows, names = clean_set(0)
    with pytest.raises(InputError, match="360 rows, 359 groups and 360 second names"):
        BackdoorGroups().fit(rows, groups=names[:-1], seconds=names)


def test_what_is_not_finite_is_refused():
    rows, names = clean_set(0)
    rows[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        BackdoorGroups().fit(rows, groups=names, seconds=seconds_of(names))


def test_published_form_accuses_a_group_that_is_far_away():
    rng = np.random.default_rng(0)
    rates = np.exp(np.r_[rng.normal(0, 0.1, 90), rng.normal(3, 0.1, 10)])[:, None]
    detector = PublishedClusters().fit(rates)
    assert np.flatnonzero(detector.accused_).tolist() == list(range(90, 100))
    assert detector.silhouette_ > 0.9


def test_published_form_does_not_accuse_one_bell():
    rates = np.exp(np.random.default_rng(0).normal(0, 0.3, 200))[:, None]
    detector = PublishedClusters().fit(rates)
    assert not detector.accused_.any()
    assert 0 < detector.smaller_.sum() < 100


def test_published_form_takes_a_constant_set():
    assert not PublishedClusters().fit(np.full((10, 2), 0.5)).accused_.any()


def test_kinds_by_hand():
    """Two of a, a, b, c: all pairs but (a, a) hold two kinds, which is 1 + 5/6."""
    names = np.array(["a", "a", "b", "c"])
    assert kinds_among(names, 2) == pytest.approx(1 + 5 / 6)
    assert kinds_among(names, 4) == 3
    assert kinds_among(names, 1) == 1


def test_the_smaller_side_may_be_the_one_of_many_voices():
    rows, names, _ = poisoned_set(1)
    few = np.r_[0:370]  # ten poisoned files only, and 30 of the speaker's own
    poisoned = np.r_[np.zeros(360), np.ones(10)]
    groups = [names[i] for i in few]
    detector = BackdoorGroups(limit=3.0).fit(
        rows[few], groups=groups, seconds=seconds_of(groups, poisoned)
    )
    assert detector.findings_[0].name == "s0"
    assert (detector.accused_ == poisoned.astype(bool)).mean() > 0.99
