from __future__ import annotations

import numpy as np
import pytest

from nip_audio.detectors.baselines.feature_squeezing import FeatureSqueezing
from nip_audio.errors import InputError


class Add:
    name = "add"

    def __init__(self, value: float) -> None:
        self.value = value

    def settings(self):
        return {"name": self.name, "value": self.value}

    def purify(self, batch, *, generator):
        return batch.with_x(batch.x + self.value)


def test_l1_distance_of_the_softmax_by_hand(by_hand, item, generator):
    """Logits (2 x₀, 0): two classes, so that the distance is twice that of one probability."""
    model = by_hand([[1.0, 0.0], [0.0, 0.0]])
    measure = FeatureSqueezing([Add(0.0), Add(-0.25), Add(0.5)])
    row = measure.measure(model, item(0.25, 0.0), generator=generator)
    p = [1 / (1 + np.exp(-logit)) for logit in (0.5, 0.0, 1.5)]
    expected = [0.0, 2 * (p[0] - p[1]), 2 * (p[2] - p[0])]
    np.testing.assert_allclose(row, expected, atol=1e-7)
    assert measure.suspicion(row[None]) == pytest.approx([max(expected)])
    assert measure.passes == 4


def test_no_squeezer_is_an_error():
    with pytest.raises(InputError, match="got no squeezers, expected at least one"):
        FeatureSqueezing([])
