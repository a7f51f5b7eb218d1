from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.objectives import Guarded, Identification
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig, Noise, measure_nccr, nccr_vector
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.differentiable import NccrDistance
from nip_audio.detectors.rates import LogRates

CONFIG = NccrConfig(
    layers=("frames.2", "embedding"),
    noises=(Noise("gaussian", "input", 0.03), Noise("gaussian", "raw", 0.002)),
    draws=2,
)
RATE_HZ = 16000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def fitted(tiny_model) -> tuple[LogRates, CleanDistance]:
    rng = seeded(1)
    rows = []
    for i in range(24):
        size = 6000 + 200 * i
        clip = Batch(0.1 * torch.randn(1, size, generator=rng).clamp(-1, 1))
        vector = measure_nccr(tiny_model, clip, CONFIG, generator=rng).vector
        rows.append(np.append(vector.numpy(), size / RATE_HZ))
    rates = LogRates().fit(rows)
    return rates, CleanDistance().fit(rates.transform(rows))


def distance(tiny_model, fitted, seed: int) -> NccrDistance:
    return NccrDistance(tiny_model, CONFIG, *fitted, unit_s=1 / RATE_HZ, generator=seeded(seed))


@pytest.fixture
def batch() -> Batch:
    return Batch(0.1 * torch.rand(2, 8000, generator=seeded(3)))


def test_vector_is_the_measured_one(tiny_model, batch):
    one = batch.item(0)
    got = nccr_vector(tiny_model, one, CONFIG, generator=seeded(4))
    expected = measure_nccr(tiny_model, one, CONFIG, generator=seeded(4)).vector
    torch.testing.assert_close(got.detach(), expected)


def test_distance_is_the_detectors(tiny_model, fitted, batch):
    rates, detector = fitted
    got = distance(tiny_model, fitted, 5)(batch).detach()
    generator = seeded(5)
    for row in range(2):
        result = measure_nccr(tiny_model, batch.item(row), CONFIG, generator=generator)
        rows = rates.transform([np.append(result.vector.double().numpy(), 0.5)])
        assert float(got[row]) == pytest.approx(float(detector.distance(rows)[0]), rel=1e-6)


def test_gradient_leads_to_what_the_detector_takes_for_clean(tiny_model, fitted, batch):
    x = batch.x.clone()
    before = float(distance(tiny_model, fitted, 6)(batch).sum().detach())
    for _ in range(5):
        x = x.requires_grad_(True)
        value = distance(tiny_model, fitted, 6)(batch.with_x(x)).sum()
        (gradient,) = torch.autograd.grad(value, x)
        x = (x - 0.0002 * gradient.sign()).clamp(-1, 1).detach()
    assert float(distance(tiny_model, fitted, 6)(batch.with_x(x)).sum().detach()) < 0.9 * before


def test_joint_attack_is_noticed_less(tiny_model, fitted, batch):
    """The same attack, the same budget, with and without the detector in its loss."""
    away = Identification(tiny_model, tiny_model.predict(batch))
    attack = EndToEndPgd(0.01, steps=5, step_share=0.2, restarts=1)
    alone = attack(away, batch, generator=seeded()).batch
    guarded = Guarded(away, distance(tiny_model, fitted, 7), threshold=0.0, scale=0.01)
    joint = attack(guarded, batch, generator=seeded()).batch
    judge = lambda x: float(distance(tiny_model, fitted, 8)(x).mean().detach())  # noqa: E731
    assert judge(joint) < judge(alone)
