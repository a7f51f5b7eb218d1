"""Rows of NCCR: with the decision, of neurons alone, and of neuron coverage."""

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.detectors.nccr_measure import (
    CoverageMeasure,
    NccrMeasure,
    neuron_rows,
    signed_entries,
)

CONFIG = NccrConfig(
    ("frames.1", "embedding"), (Noise("gaussian", "raw", 0.01), Noise("mask", "input", 0.2)), 2
)


@pytest.fixture
def item() -> Batch:
    return Batch(torch.rand(1, 8000, generator=seeded()) - 0.5)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_neuron_rows_are_the_papers_vector_and_the_length(tiny_model, item):
    row = NccrMeasure(CONFIG).measure(tiny_model, item, generator=seeded())
    vector = measure_nccr(tiny_model, item, CONFIG, generator=seeded()).vector.double().numpy()
    (neurons,) = neuron_rows(row[None], CONFIG)
    np.testing.assert_allclose(neurons, [*vector, item.x.shape[-1]])
    assert len(row) > len(neurons)


def test_rows_of_coverage_are_shares_under_the_same_noise(tiny_model, item):
    measure = CoverageMeasure(CONFIG)
    row = measure.measure(tiny_model, item, generator=seeded())
    flips = measure_nccr(tiny_model, item, CONFIG, generator=seeded()).flips
    np.testing.assert_allclose(row, flips.mean(dim=1).flatten().double().numpy())
    assert measure.suspicion(row[None]) == pytest.approx(float(flips.mean()))
    assert measure.passes == NccrMeasure(CONFIG).passes == 5


def test_settings_tell_the_two_apart():
    assert CoverageMeasure(CONFIG).settings() != NccrMeasure(CONFIG).settings()
    assert signed_entries(CONFIG, head=False) == 0
