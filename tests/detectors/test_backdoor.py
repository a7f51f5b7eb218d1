from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nip_audio.detectors.backdoor import (
    BackdoorGroups,
    PublishedClusters,
    SetEvidence,
    expected_distinct,
)
from nip_audio.errors import InputError

FEATURES = 12
GROUPS = 12
FILES = 30


def clean_set(seed, *, groups=GROUPS, files=FILES):
    """Groups with centres of their own and scatter alike."""
    rng = np.random.default_rng(seed)
    centres = 5 * rng.standard_normal((groups, FEATURES))
    names = np.repeat([f"s{g}" for g in range(groups)], files)
    return SetEvidence(
        predictions=names,
        second_predictions=np.array([f"{name}'s twin" for name in names]),
        margins=1 + 0.1 * rng.random(len(names)),
        changes=np.repeat(centres, files, axis=0) + rng.standard_normal((len(names), FEATURES)),
        outputs=np.repeat(centres, files, axis=0) + rng.standard_normal((len(names), FEATURES)),
    )


def added(known, rows):
    """A set with the files of another."""
    both = {k: np.concatenate([getattr(known, k), getattr(rows, k)]) for k in vars(known)}
    return SetEvidence(**both)


def files_of_many(known, seed, *, count=40, shift=12.0, scatter=2.5, lead=2.0):
    """Files of many origins that all are named s0, with something in common."""
    rng = np.random.default_rng(seed + 1)
    common = np.zeros(FEATURES)
    common[:3] = shift

    def rows(own):
        return own[:FILES].mean(axis=0) + common + scatter * rng.standard_normal((count, FEATURES))

    return SetEvidence(
        predictions=np.array(["s0"] * count),
        second_predictions=np.array([f"s{k}" for k in rng.integers(1, GROUPS, count)]),
        margins=lead + 0.1 * rng.random(count),
        changes=rows(known.changes),
        outputs=rows(known.outputs),
    )


def poisoned_set(seed, **how):
    """A clean set, and rows of many origins under its first name."""
    known = clean_set(seed)
    bad = files_of_many(known, seed, **how)
    return added(known, bad), np.r_[
        np.zeros(len(known.predictions)), np.ones(len(bad.predictions))
    ] > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_is_not_accused(seed):
    judgement = BackdoorGroups().judge(clean_set(seed))
    assert not judgement.accused.any()
    assert not any(finding.accused for finding in judgement.findings)
    assert len(judgement.findings) == GROUPS


@pytest.mark.parametrize("seed", range(5))
def test_the_poisoned_files_are_accused_and_no_others(seed):
    known, poisoned = poisoned_set(seed)
    judgement = BackdoorGroups().judge(known)
    worst = judgement.findings[0]
    assert worst.name == "s0"
    assert [f.name for f in judgement.findings if f.accused] == ["s0"]
    assert (judgement.accused != poisoned).sum() <= 2
    assert worst.suspects == judgement.accused.sum()
    assert worst.unlikeness > 6 > worst.other_unlikeness
    assert worst.score > judgement.limit
    assert judgement.suspicion[FILES : GROUPS * FILES].max() == 0


def unbalanced(seed, **odd):
    """A clean set whose first name has five times the files of the others."""
    known = clean_set(seed, files=5 * FILES)
    mine = known.predictions == "s0"
    rows = np.concatenate(
        [np.flatnonzero(known.predictions == n)[:FILES] for n in np.unique(known.predictions)]
    )
    rows = np.union1d(np.flatnonzero(mine), rows)
    wide = 1.0 + mine[:, None] * (odd.get("scatter", 1.0) - 1.0)
    centre = {k: np.median(getattr(known, k)[mine], axis=0) for k in ("changes", "outputs")}
    parts = {k: centre[k] + (getattr(known, k) - centre[k]) * wide for k in centre}
    known = replace(known, margins=known.margins + mine * odd.get("lead", 0.0), **parts)
    return SetEvidence(**{k: values[rows] for k, values in vars(known).items()})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("odd", [{}, {"scatter": 1.2}, {"lead": 0.1}])
def test_a_clean_name_of_many_files_is_not_accused(seed, odd):
    """Separation grows with files, and a name may be unlike others as a whole."""
    judgement = BackdoorGroups().judge(unbalanced(seed, **odd))
    assert not judgement.accused.any()


def test_two_targets_are_both_accused():
    known, poisoned = poisoned_set(1)
    second = files_of_many(clean_set(1), 7)
    second = replace(second, predictions=np.array(["s5"] * 40))
    own = known.predictions == "s5"
    for view in ("changes", "outputs"):
        moved = getattr(second, view) + np.median(getattr(known, view)[own], axis=0)
        moved -= np.median(getattr(known, view)[:FILES], axis=0)
        second = replace(second, **{view: moved})
    judgement = BackdoorGroups().judge(added(known, second))
    assert {f.name for f in judgement.findings if f.accused} == {"s0", "s5"}
    wrong = judgement.accused != np.r_[poisoned, np.ones(40, dtype=bool)]
    assert wrong.sum() <= 4


def test_names_whose_files_are_copies_do_not_make_others_suspicious():
    known = clean_set(0, groups=20)
    copies = np.isin(known.predictions, [f"s{k}" for k in range(11)])
    first = {n: np.flatnonzero(known.predictions == n)[0] for n in np.unique(known.predictions)}
    source = np.array(
        [
            first[n] if c else i
            for i, (n, c) in enumerate(zip(known.predictions, copies, strict=True))
        ]
    )
    known = SetEvidence(**{k: values[source] for k, values in vars(known).items()})
    judgement = BackdoorGroups().judge(known)
    assert not judgement.accused.any()
    assert max(f.alarm for f in judgement.findings) < 20


@pytest.mark.parametrize(("limit", "accused"), [(0.99, True), (1.01, False)])
def test_a_score_is_the_mean_of_alarm_and_excess_and_has_a_limit(limit, accused):
    known, _ = poisoned_set(3)
    found = BackdoorGroups().judge(known).findings[0]
    expected = np.sqrt(20.0 * (found.unlikeness - max(0.0, found.other_unlikeness)))
    assert found.alarm > 20
    assert found.score == pytest.approx(expected)
    again = BackdoorGroups(limit=found.score * limit).judge(known)
    assert again.accused.any() == accused


def test_a_name_of_two_sessions_is_not_accused():
    """The split is as clear as a backdoor's, but neither side is of many voices."""
    known = clean_set(2)
    moved = np.zeros(FEATURES)
    moved[:3] = 12.0
    half = np.arange(len(known.predictions)) < FILES // 2
    known = replace(
        known,
        changes=known.changes + half[:, None] * moved,
        outputs=known.outputs + half[:, None] * moved,
    )
    judgement = BackdoorGroups().judge(known)
    (finding,) = (f for f in judgement.findings if f.name == "s0")
    assert finding.alarm > 20
    assert finding.score < 5
    assert not judgement.accused.any()


def test_a_file_that_lies_far_from_all_hides_nobody():
    """A split into it and the rest has a side with no scatter at all, and says nothing."""
    known, poisoned = poisoned_set(2)
    far = np.where(np.arange(len(known.predictions)) < 1, 1e3, 0.0)[:, None]
    known = replace(known, changes=known.changes + far)
    judgement = BackdoorGroups(clip=1e4).judge(known)
    assert (judgement.accused != poisoned).sum() <= 1


@pytest.mark.parametrize(("hidden", "seen"), [("changes", "outputs"), ("outputs", "changes")])
def test_a_trigger_that_one_view_hides_is_seen_in_the_other(hidden, seen):
    """Noise that is itself a trigger hides it in the changes; others only noise shows."""
    known, poisoned = poisoned_set(1)
    rows = getattr(known, hidden)
    known = replace(known, **{hidden: np.concatenate([rows[:360], rows[:40]])})
    judgement = BackdoorGroups().judge(known)
    assert judgement.findings[0].name == "s0"
    assert judgement.findings[0].seen_in == seen
    assert (judgement.accused != poisoned).sum() <= 2


@pytest.mark.parametrize("view", ["changes", "outputs"])
def test_the_split_is_taken_whose_sides_differ_most(view):
    """Where one view blurs the kinds the other tells them apart."""
    known, poisoned = poisoned_set(4, shift=8.0, scatter=1.0)
    near = np.where(poisoned[:, None] & (np.arange(FEATURES) < 3), 8.0 - 1.2, 0.0)
    known = replace(known, **{view: getattr(known, view) - near})
    assert (BackdoorGroups().judge(known).accused != poisoned).sum() <= 1


@pytest.mark.parametrize("sign", ["margins", "second_predictions", "scatter"])
def test_each_sign_of_many_voices_counts(sign):
    """One sign at a time, with the others as usual: the poisoned side is the more suspicious."""
    known, poisoned = poisoned_set(3, scatter=3.0 if sign == "scatter" else 1.0, lead=1.0)
    if sign != "second_predictions":
        known = replace(
            known, second_predictions=np.array([f"{name}'s twin" for name in known.predictions])
        )
    if sign == "margins":
        known = replace(known, margins=known.margins + poisoned)
    judgement = BackdoorGroups(most_alarm=1e3).judge(known)
    assert judgement.findings[0].name == "s0"
    assert (judgement.accused != poisoned).sum() <= 2


def test_order_and_scale_change_nothing():
    known, _ = poisoned_set(3)
    order = np.random.default_rng(0).permutation(len(known.predictions))
    first = BackdoorGroups().judge(known)
    turned = SetEvidence(**{k: values[order] for k, values in vars(known).items()})
    turned = replace(turned, changes=turned.changes * np.linspace(0.1, 10, FEATURES))
    second = BackdoorGroups().judge(turned)
    assert first.accused.any()
    assert np.array_equal(first.accused[order], second.accused)


def test_small_groups_are_not_judged():
    known = clean_set(0)
    few = SetEvidence(
        predictions=np.array(["few"] * 5),
        second_predictions=np.array(["s1"] * 5),
        margins=np.ones(5),
        changes=100 + np.zeros((5, FEATURES)),
        outputs=100 + np.zeros((5, FEATURES)),
    )
    judgement = BackdoorGroups().judge(added(known, few))
    assert "few" not in {finding.name for finding in judgement.findings}
    assert judgement.suspicion[-5:].tolist() == [0.0] * 5


def test_too_few_groups_are_refused():
    with pytest.raises(InputError, match=r"4 labels .* expected at least 8 such labels"):
        BackdoorGroups().judge(clean_set(0, groups=4))


def test_evidence_must_be_of_equally_many_files():
    known = clean_set(0)
    with pytest.raises(
        InputError, match=r"360 predictions, 359 second_predictions, .* one per file"
    ):
        replace(known, second_predictions=known.second_predictions[:-1])


@pytest.mark.parametrize("name", ["margins", "changes", "outputs"])
def test_what_is_not_finite_is_refused(name):
    known = clean_set(0)
    values = getattr(known, name).copy()
    values.flat[0] = np.nan
    with pytest.raises(InputError, match=f"{name} hold NaN"):
        replace(known, **{name: values})


def test_files_that_are_all_alike_are_not_accused():
    known = clean_set(0)
    flat = np.zeros_like(known.changes)
    alike = replace(known, changes=flat, outputs=flat, margins=np.ones(len(known.predictions)))
    assert not BackdoorGroups().judge(alike).accused.any()


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
    assert expected_distinct(names, 2) == pytest.approx(1 + 5 / 6)
    assert expected_distinct(names, 4) == 3
    assert expected_distinct(names, 1) == 1


def test_the_smaller_side_may_be_the_one_of_many_voices():
    known, poisoned = poisoned_set(1, count=10)
    judgement = BackdoorGroups().judge(known)
    assert judgement.findings[0].name == "s0"
    assert (judgement.accused == poisoned).mean() > 0.99
