"""Examples at the smallest strength that fools."""

import json

import pytest

from studies._lib.records import plain, read_record
from studies.images.results import SmallestCell, SmallestResults
from studies.images.smallest import smallest_examples

STRENGTHS = (0.05, 0.1, 0.3)


def test_each_image_keeps_the_first_strength_that_fools(system):
    pytest.importorskip("foolbox")
    full = smallest_examples(system, "fgsm", STRENGTHS[-1:], images=20)
    grown = smallest_examples(system, "fgsm", STRENGTHS, images=20)
    assert set(full.eps) == {STRENGTHS[-1]}
    assert set(full.rows) <= set(grown.rows)
    assert min(grown.eps) < STRENGTHS[-1]
    clean = system.test.pixels[list(grown.rows)]
    change = (grown.pixels - clean).abs().flatten(1).amax(dim=1)
    assert all(c <= eps + 1e-6 for c, eps in zip(change.tolist(), grown.eps, strict=True))
    weaker = smallest_examples(system, "fgsm", STRENGTHS[:1], images=20)
    assert {r for r, eps in zip(grown.rows, grown.eps, strict=True) if eps == 0.05} == set(
        weaker.rows
    )


def test_results_are_read_as_written():
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    cell = SmallestCell("pgd", True, 40, 38, 0.01, {"attack cost": share})
    results = plain(SmallestResults("m", 1, 50, [cell]))
    assert plain(read_record(SmallestResults, json.loads(json.dumps(results)))) == results
