from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.objectives import Guarded, Identification
from nip_audio.audio.meh_fest import MehFest
from nip_audio.core.adapter import Batch
from nip_audio.core.decision import evidence_vector
from nip_audio.core.nccr import NccrConfig, measure_nccr, nccr_with_graph
from nip_audio.core.noise import Noise
from nip_audio.detectors.clean import CleanDistance
from nip_audio.detectors.density import CleanDensity
from nip_audio.detectors.differentiable import KnownDetector, NccrDistance
from nip_audio.detectors.nccr_measure import NccrMeasure, signed_entries
from nip_audio.detectors.perceptron import AttackPerceptron
from nip_audio.detectors.rates import LogRates
from nip_audio.detectors.summed import CleanSum
from tests.tolerance import assert_same_but_for_rounding, depth_of, rounding

CONFIG = NccrConfig(
    layers=("frames.2", "embedding"),
    noises=(Noise("gaussian", "input", 0.03), Noise("gaussian", "raw", 0.002)),
    draws=2,
)
MEASURE = NccrMeasure(CONFIG)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["distance", "density", "perceptron"])
def fitted(request, tiny_model):
    rng = seeded(1)
    rows = []
    for i in range(24):
        clip = Batch(0.1 * torch.randn(1, 6000 + 200 * i, generator=rng).clamp(-1, 1))
        rows.append(MEASURE.measure(tiny_model, clip, generator=rng))
    rates = LogRates(signed=signed_entries(CONFIG, head=True)).fit(rows)
    scaled = rates.transform(rows)
    if request.param == "perceptron":
        attacked = np.arange(24) % 2
        return rates, AttackPerceptron(parameters=60, max_iter=3000).fit(scaled, attacked)
    detector = CleanDistance() if request.param == "distance" else CleanDensity(neighbours=5)
    return rates, detector.fit(scaled)


def tolerance(model) -> float:
    """Rates are shares of 1; their logarithms are divided by a spread of a twentieth or more."""
    return rounding(depth_of(model), size=20.0)


def distance(model, fitted, seed: int) -> NccrDistance:
    return NccrDistance(model, CONFIG, KnownDetector(*fitted), generator=seeded(seed))


@pytest.fixture
def batch() -> Batch:
    return Batch(0.1 * torch.rand(2, 8000, generator=seeded(3)))


def test_evidence_is_the_measured_one(tiny_model, batch):
    one = batch.item(0)
    with_graph = nccr_with_graph(tiny_model, one, CONFIG, generator=seeded(4))
    measured = measure_nccr(tiny_model, one, CONFIG, generator=seeded(4))
    got, expected = (evidence_vector(tiny_model, r) for r in (with_graph, measured))
    depth = depth_of(tiny_model)
    assert_same_but_for_rounding(got.detach(), expected.detach(), depth=depth, size=1.0)


def test_distance_is_the_detectors(tiny_model, fitted, batch):
    rates, detector = fitted
    got = distance(tiny_model, fitted, 5)(batch).detach()
    generator = seeded(5)
    for row in range(2):
        measured = MEASURE.measure(tiny_model, batch.item(row), generator=generator)
        expected = -detector.score_samples(rates.transform([measured]))[0]
        assert float(got[row]) == pytest.approx(float(expected), rel=tolerance(tiny_model))


def test_several_detectors_are_averaged_over_their_thresholds(tiny_model, fitted, batch):
    one = distance(tiny_model, fitted, 5)(batch).detach()
    known = (KnownDetector(*fitted, threshold=3.0), KnownDetector(*fitted, threshold=-1.0))
    both = NccrDistance(tiny_model, CONFIG, *known, generator=seeded(5))(batch).detach()
    torch.testing.assert_close(both, one - 1)


def test_a_further_entry_is_the_last_signed_one(tiny_model, batch):
    quiet = MehFest(sample_rate_hz=16000)
    rng = seeded(1)
    rows = []
    for i in range(24):
        clip = Batch(0.1 * torch.randn(1, 6000 + 200 * i, generator=rng).clamp(-1, 1))
        row = MEASURE.measure(tiny_model, clip, generator=rng)
        rows.append([*row[:-1], *quiet.measure(tiny_model, clip, generator=rng), row[-1]])
    rates = LogRates(signed=signed_entries(CONFIG, head=True) + 1).fit(rows)
    detector = CleanSum(neighbours=5).fit(rates.transform(rows))
    known = KnownDetector(rates, detector)
    evidence = NccrDistance(tiny_model, CONFIG, known, generator=seeded(5), beside=quiet.entry)
    got = evidence(batch.item(0)).detach()
    measured = MEASURE.measure(tiny_model, batch.item(0), generator=seeded(5))
    row = [*measured[:-1], *quiet.measure(tiny_model, batch.item(0), generator=rng), measured[-1]]
    expected = detector.distance(rates.transform([row]))[0]
    assert float(got[0]) == pytest.approx(expected, rel=tolerance(tiny_model))


def test_gradient_leads_to_what_the_detector_takes_for_clean(tiny_model, fitted, batch):
    x = batch.x.clone()
    before = float(distance(tiny_model, fitted, 6)(batch).sum().detach())
    for _ in range(5):
        x = x.requires_grad_(True)
        value = distance(tiny_model, fitted, 6)(batch.with_x(x)).sum()
        (gradient,) = torch.autograd.grad(value, x)
        x = (x - 0.0002 * gradient.sign()).clamp(-1, 1).detach()
    assert float(distance(tiny_model, fitted, 6)(batch.with_x(x)).sum().detach()) < 0.9 * before


# not the perceptron, which here has learned arbitrary labels: its log-odds have no clean side
@pytest.mark.parametrize("fitted", ["distance", "density"], indirect=True)
def test_joint_attack_is_noticed_less(tiny_model, fitted, batch):
    """The same attack, the same budget, with and without the detector in its loss."""
    away = Identification(tiny_model, tiny_model.predict(batch))
    attack = EndToEndPgd(0.01, steps=5, step_share=0.2, restarts=1)
    alone = attack(away, batch, generator=seeded()).batch
    guarded = Guarded(away, distance(tiny_model, fitted, 7), threshold=0.0, scale=0.01)
    joint = attack(guarded, batch, generator=seeded()).batch
    judge = lambda x: float(distance(tiny_model, fitted, 8)(x).mean().detach())  # noqa: E731
    assert judge(joint) < judge(alone)
