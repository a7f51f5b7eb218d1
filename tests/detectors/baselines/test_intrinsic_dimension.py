from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.detectors.baselines.intrinsic_dimension import (
    IntrinsicDimension,
    intrinsic_dimension,
)
from nip_audio.errors import CalibrationError, InputError

HEAD = [[1.0, 0.0], [0.0, 1.0]]


def test_estimate_by_hand():
    """Of the three nearest, log r / 4 is log ¼, log ½ and 0: minus the mean is log 2."""
    assert intrinsic_dimension(np.array([8.0, 1.0, 4.0, 2.0]), 3) == pytest.approx(1 / np.log(2))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_estimate_is_the_dimension_of_a_uniform_ball(size):
    rng = np.random.default_rng(0)
    estimates = [intrinsic_dimension(rng.uniform(size=500) ** (1 / size), 100) for _ in range(50)]
    assert np.mean(estimates) == pytest.approx(size, rel=0.05)


def test_points_that_are_equally_far_have_a_finite_dimension():
    assert intrinsic_dimension(np.ones(5), 4) == 1000.0


def test_points_that_are_all_this_one_are_an_error():
    with pytest.raises(CalibrationError, match="0 clean items differ from this one"):
        intrinsic_dimension(np.zeros(5), 4)


def test_one_estimate_a_layer_without_the_item_itself(by_hand, generator):
    model = by_hand(HEAD)
    x = torch.rand(30, 2, generator=generator)
    clean = [Batch(row[None]) for row in x]
    measure = IntrinsicDimension(["twice", "act"], neighbours=5)
    measure.fit(model, clean, generator=generator)
    row = measure.measure(model, clean[0], generator=generator)
    others = (x[1:] - x[0]).norm(dim=1).double().numpy()
    expected = intrinsic_dimension(others, 5)
    assert row == pytest.approx([expected, expected], rel=1e-4)
    assert measure.suspicion(row[None]) == pytest.approx([expected], rel=1e-4)


def test_at_most_a_minibatch_is_kept(by_hand, generator):
    clean = [Batch(row[None]) for row in torch.rand(30, 2, generator=generator)]
    measure = IntrinsicDimension(["act"], neighbours=5, batch=12)
    measure.fit(by_hand(HEAD), clean, generator=generator)
    assert measure.references_[0].shape == (12, 2)
    with pytest.raises(CalibrationError, match="got 5 clean items, expected at least 6"):
        measure.fit(by_hand(HEAD), clean[:5], generator=generator)


@pytest.mark.parametrize("settings", [{"neighbours": 1}, {"neighbours": 5, "batch": 5}])
def test_senseless_settings_are_an_error(settings):
    with pytest.raises(InputError, match="expected at least"):
        IntrinsicDimension(["act"], **settings)
