from __future__ import annotations

import numpy as np
import pytest

from nip_audio.detectors.baselines.coverage import BoundaryCoverage, NeuronCoverage, coverage
from nip_audio.errors import InputError

EYE = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]


def test_share_above_the_threshold_by_hand(by_hand, item, generator):
    """twice: (-1, 0, 1.4, 2), scaled (0, ⅓, 0.8, 1); act: (0, 0, 1.4, 2), scaled (0, 0, 0.7, 1)."""
    measure = NeuronCoverage(["twice", "act"], thresholds=[0.25, 0.75])
    row = measure.measure(by_hand(EYE), item(-0.5, 0.0, 0.7, 1.0), generator=generator)
    assert row.tolist() == [0.75, 0.5, 0.5, 0.25]
    assert measure.suspicion(row[None]) == pytest.approx([0.5])


def test_a_layer_whose_neurons_are_equal_covers_nothing():
    assert coverage(np.full(3, 7.0), 0.0) == 0.0


def test_beyond_the_range_of_clean_items_by_hand(by_hand, item, generator):
    clean = [item(0.1, 0.2, 0.3, 0.4), item(0.2, 0.1, 0.5, 0.4)]
    measure = BoundaryCoverage(["act"]).fit(by_hand(EYE), clean, generator=generator)
    row = measure.measure(by_hand(EYE), item(0.3, 0.15, 0.2, 0.4), generator=generator)
    assert row.tolist() == [0.25, 0.25]
    assert all(
        measure.measure(by_hand(EYE), x, generator=generator).tolist() == [0, 0] for x in clean
    )


@pytest.mark.parametrize("thresholds", [[], [1.0], [-0.1]])
def test_senseless_thresholds_are_an_error(thresholds):
    with pytest.raises(InputError, match=r"expected at least one in \[0, 1\)"):
        NeuronCoverage(["act"], thresholds=thresholds)


@pytest.mark.parametrize("layers", [[], "act"])
def test_layers_are_a_list(layers):
    with pytest.raises(InputError, match="expected a list of at least one name"):
        NeuronCoverage(layers)
