from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.detectors.baselines.model_mutation import LabelChangeRate
from nip_audio.errors import CalibrationError, InputError, StateError


def change(index: int, by: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {"head.weight": (torch.tensor([index]), torch.tensor([by]))}


def clean(count: int = 20) -> list[Batch]:
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(3))
    return [Batch(row[None]) for row in x]


def test_rate_by_hand(by_hand, item, generator):
    """Logits (1, 0.8): of four changes of one weight, two let the second class win."""
    measure = LabelChangeRate(mutants=4)
    measure.mutants_ = (change(0, -0.1), change(0, -0.3), change(3, 0.2), change(3, 0.3))
    row = measure.measure(by_hand([[1.0, 0.0], [0.0, 1.0]]), item(0.5, 0.4), generator=generator)
    assert row.tolist() == [0.5]
    assert measure.suspicion(row[None]).tolist() == [0.5]


def test_mutants_agree_with_the_model_and_differ_by_the_rate(by_hand, generator):
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    measure = LabelChangeRate(mutants=30, rate=0.5).fit(model, clean(), generator=generator)
    assert len(measure.mutants_) == 30
    wrong = [
        measure.measure(model, item, generator=generator)[0] * len(measure.mutants_)
        for item in clean()
    ]
    assert sum(wrong) <= 0.1 * 20 * 30
    changed = [len(where) for mutant in measure.mutants_ for where, _ in mutant.values()]
    assert 0 < sum(changed) <= 30 * 8
    assert {name for mutant in measure.mutants_ for name in mutant} == {
        "network.twice.weight",
        "head.weight",
    }


def test_noise_has_the_spread_of_its_tensor(by_hand, generator):
    """Weights (1, 0, 0, 1) have a standard deviation of ½, (2, 0, 0, 2) of 1."""
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    measure = LabelChangeRate(mutants=400, rate=1.0, accuracy=0.01, judges=2)
    measure.fit(model, clean(), generator=generator)
    for name, spread in (("head.weight", 0.5), ("network.twice.weight", 1.0)):
        drawn = torch.cat([mutant[name][1] for mutant in measure.mutants_])
        assert float(drawn.std()) == pytest.approx(spread, rel=0.1)


def test_rate_is_halved_until_mutants_agree(by_hand, generator):
    model = by_hand([[1.0, 0.0], [0.0, 1.0]])
    strict = LabelChangeRate(mutants=5, rate=1.0, accuracy=1.0)
    strict.fit(model, clean(), generator=generator)
    assert strict.rate_ in {2.0**-n for n in range(1, 20)}


def test_a_model_that_no_mutant_agrees_with_is_an_error(by_hand, generator, monkeypatch):
    monkeypatch.setattr(LabelChangeRate, "_accurate", lambda *args: False)
    with pytest.raises(CalibrationError, match="no mutant agrees .* lower accuracy"):
        LabelChangeRate().fit(by_hand([[1.0, 0.0], [0.0, 1.0]]), clean(), generator=generator)


def test_mutants_of_another_model_are_an_error(by_hand, item, generator):
    measure = LabelChangeRate(mutants=2)
    measure.fit(by_hand([[1.0, 0.0], [0.0, 1.0]]), clean(), generator=generator)
    measure.mutants_ = (change(7, 0.1),)
    with pytest.raises(StateError, match=r"made of a model with weights head.weight"):
        measure.measure(by_hand([[1.0, 0.0], [0.0, 1.0]]), item(0.5, 0.4), generator=generator)


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"accuracy": 1.5}, {"mutants": 0}])
def test_senseless_settings_are_an_error(settings):
    with pytest.raises(InputError, match="expected"):
        LabelChangeRate(**settings)
