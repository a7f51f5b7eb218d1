from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.detectors.baselines.feature_squeezing import FeatureSqueezing
from nip_audio.errors import InputError
from tests.tolerance import rounding


class Add:
    name = "add"

    def __init__(self, value: float) -> None:
        self.value = value

    def settings(self):
        return {"name": self.name, "value": self.value}

    def purify(self, batch, *, generator):
        return batch.with_x(batch.x + self.value)


class AddFirst(Add):
    def purify(self, batch, *, generator):
        return batch.with_x(batch.x + torch.tensor([[self.value, 0.0]]))


def test_l1_distance_of_the_softmax_by_hand(by_hand, item, generator):
    """Logits (2 x₀, 0): two classes, so that the distance is twice that of one probability."""
    model = by_hand([[1.0, 0.0], [0.0, 0.0]])
    measure = FeatureSqueezing([Add(0.0), Add(-0.25), Add(0.5)], agreement=0.0)
    measure.fit(model, [item(0.25, 0.0)] * 2, generator=generator)
    row = measure.measure(model, item(0.25, 0.0), generator=generator)
    p = [1 / (1 + np.exp(-logit)) for logit in (0.5, 0.0, 1.5)]
    expected = [0.0, 2 * (p[0] - p[1]), 2 * (p[2] - p[0])]
    np.testing.assert_allclose(row, expected, rtol=0, atol=rounding())
    assert measure.suspicion(row[None]) == pytest.approx([max(expected)], abs=rounding())
    assert measure.passes == 4


@pytest.mark.parametrize(
    ("agreement", "kept"), [(0.5, [0.0, 0.4]), (0.8, [0.0]), (0.0, [0, 0.4, 2])]
)
def test_squeezers_that_do_harm_are_left_out(by_hand, item, generator, agreement, kept):
    """Named is the larger of 2 x₀ and 1: of four items, 0.4 more turns two, and 2 more three."""
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    clean = [item(x, 0.5) for x in (0.9, 0.3, 0.2, -0.5)]
    measure = FeatureSqueezing([AddFirst(0.0), AddFirst(0.4), AddFirst(2.0)], agreement=agreement)
    measure.fit(model, clean, generator=generator)
    assert [squeezer.value for squeezer in measure.kept_] == kept


def test_the_best_is_kept_if_all_do_harm(by_hand, item, generator):
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    clean = [item(x, 0.5) for x in (0.9, 0.3, 0.2, -0.5)]
    measure = FeatureSqueezing([AddFirst(2.0), AddFirst(0.4)], agreement=0.9)
    measure.fit(model, clean, generator=generator)
    assert [squeezer.value for squeezer in measure.kept_] == [0.4]


def test_no_squeezer_is_an_error():
    with pytest.raises(InputError, match="got no squeezers, expected at least one"):
        FeatureSqueezing([])
    with pytest.raises(InputError, match="agreement is 2, expected a share"):
        FeatureSqueezing([Add(0.0)], agreement=2)
