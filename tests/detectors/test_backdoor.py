from __future__ import annotations

import numpy as np
import pytest

from nip_audio.detectors.backdoor import BackdoorGroups, PublishedClusters
from nip_audio.errors import InputError

FEATURES = 12


def clean_set(seed, *, groups=12, files=30):
    """Groups with centres of their own and scatter alike."""
    rng = np.random.default_rng(seed)
    centres = 5 * rng.standard_normal((groups, FEATURES))
    rows = np.concatenate([c + rng.standard_normal((files, FEATURES)) for c in centres])
    return rows, [f"s{g}" for g in range(groups) for _ in range(files)]


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
    detector = BackdoorGroups().fit(rows, groups=names)
    assert not detector.accused_.any()
    assert not any(finding.accused for finding in detector.findings_)
    assert len(detector.findings_) == 12


@pytest.mark.parametrize("seed", range(5))
def test_the_poisoned_files_are_accused_and_no_others(seed):
    rows, names, poisoned = poisoned_set(seed)
    detector = BackdoorGroups().fit(rows, groups=names)
    assert detector.findings_[0].name == "s0"
    assert [f.name for f in detector.findings_ if f.accused] == ["s0"]
    wrong = detector.accused_ != poisoned.astype(bool)
    assert wrong.sum() <= 1
    assert detector.findings_[0].suspects == detector.accused_.sum()
    assert detector.suspicion_[30:360].max() == 0


def test_order_and_scale_change_nothing():
    rows, names, _ = poisoned_set(3)
    scaled = rows * np.linspace(0.1, 10, FEATURES)
    order = np.random.default_rng(0).permutation(len(rows))
    first = BackdoorGroups().fit(rows, groups=names)
    second = BackdoorGroups().fit(scaled[order], groups=[names[i] for i in order])
    assert np.array_equal(first.accused_[order], second.accused_)


def test_small_groups_are_not_judged():
    rows, names = clean_set(0)
    rows = np.concatenate([rows, 100 + np.zeros((5, FEATURES))])
    detector = BackdoorGroups().fit(rows, groups=[*names, *["few"] * 5])
    assert "few" not in {finding.name for finding in detector.findings_}
    assert detector.suspicion_[-5:].tolist() == [0.0] * 5


def test_too_few_groups_are_refused():
    rows, names = clean_set(0, groups=4)
    with pytest.raises(InputError, match=r"4 names .* expected 8 such names or more"):
        BackdoorGroups().fit(rows, groups=names)


def test_rows_and_groups_must_fit():
    rows, names = clean_set(0)
    with pytest.raises(InputError, match="360 rows and 359 groups"):
        BackdoorGroups().fit(rows, groups=names[:-1])


def test_what_is_not_finite_is_refused():
    rows, names = clean_set(0)
    rows[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        BackdoorGroups().fit(rows, groups=names)


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
