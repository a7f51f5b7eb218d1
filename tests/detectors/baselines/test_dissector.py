from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.detectors.baselines.dissector import Dissector, snapshot_validity

HEAD = [[3.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 0.0, 2.0]]


def clean(count: int = 40) -> list[Batch]:
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(2))
    return [Batch(row[None]) for row in x]


def test_profile_validity_has_growing_weights():
    rows = np.array([[0.2, 0.5, 0.9], [1.0, 1.0, 1.0]])
    got = Dissector(["a", "b", "c"]).suspicion(np.log(rows))
    assert got == pytest.approx([1 - (0.2 + 2 * 0.5 + 3 * 0.9) / 6, 0.0])


def test_validity_stays_a_number_for_the_surest_sub_model():
    assert snapshot_validity(np.array([1e6, 0.0]), 0) == 0.0
    assert snapshot_validity(np.array([1e6, 0.0]), 1) == -1e6


def test_sub_model_of_the_layer_before_the_head_is_the_head(by_hand, generator):
    """Its logits are linear in that layer: the fit finds them again, and so the odds."""
    model = by_hand(HEAD)
    measure = Dissector(["act"]).fit(model, clean(), generator=generator)
    item = Batch(torch.tensor([[0.9, 0.3, 0.2]]))
    row = measure.measure(model, item, generator=generator)
    # logits (5.8, 1.2, 2.6): the named class against the second best
    assert np.exp(row) == pytest.approx([1 / (1 + np.exp(2.6 - 5.8))], abs=1e-3)


def test_a_class_that_no_clean_item_has_is_known_by_the_logits(by_hand, generator):
    model = by_hand(HEAD)
    seen = [item for item in clean(200) if int(model.predict(item)) != 1]
    measure = Dissector(["act"]).fit(model, seen, generator=generator)
    item = Batch(torch.tensor([[0.05, 0.9, 0.05]]))
    assert int(model.predict(item)) == 1
    assert measure.measure(model, item, generator=generator)[0] > np.log(0.9)
