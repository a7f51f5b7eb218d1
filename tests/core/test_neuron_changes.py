from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.neuron_changes import measure_neuron_changes
from nip_audio.core.noise import Noise
from nip_audio.errors import InputError, LayerNotFoundError

NOISES = (
    Noise("gaussian", "raw", 0.1),
    Noise("mask", "input", 0.5),
    Noise("uniform", "input", 1.0),
)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 5, 3, padding=1)
        self.second = nn.Conv1d(5, 3, 3, padding=1)

    def forward(self, x, lengths=None):
        return self.second(self.first(x).relu()).mean(dim=2)


class Halve(nn.Module):
    def forward(self, x, lengths=None):
        return x / 2, lengths


@pytest.fixture
def model():
    torch.manual_seed(0)
    return InstrumentedModel(
        TwoLayers().double(),
        front_end=Halve(),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(-0.5, 0.5),
    ).eval()


@pytest.fixture
def item():
    return Batch(torch.rand(1, 4, 9, dtype=torch.float64) - 0.5)


def measured(model, item, noises=NOISES, draws=3, layers=("first", "second")):
    return measure_neuron_changes(
        model,
        item,
        layers=layers,
        noises=noises,
        draws=draws,
        generator=torch.Generator().manual_seed(5),
    )


def test_by_hand(model, item):
    noise = Noise("gaussian", "input", 0.2)
    found = measured(model, item, (noise,), draws=1)
    drawn = torch.randn((1, 4, 9), generator=torch.Generator().manual_seed(5))
    x = item.x / 2
    noisy = (x + 0.2 * drawn).clamp(-0.5, 0.5)
    before, after = (model.network.first(v).mean(dim=2)[0] for v in (x, noisy))
    assert torch.allclose(found.neurons["first"][0], (after - before) / before.norm())
    assert torch.allclose(found.outputs["first"], before)
    rate = (after - before).norm() / before.norm()
    assert torch.allclose(found.rates["first"][0], rate)


def test_rates_are_those_of_nccr(model, item):
    config = NccrConfig(layers=("first", "second"), noises=NOISES, draws=3)
    known = measure_nccr(model, item, config, generator=torch.Generator().manual_seed(5))
    found = measured(model, item)
    rates = torch.stack([found.rates["first"], found.rates["second"]], dim=1)
    assert torch.allclose(rates.flatten(), known.vector)
    assert torch.allclose(found.embedding, known.embedding)


def test_equal_generators_give_equal_results_and_no_hook_stays(model, item):
    assert torch.equal(
        measured(model, item).neurons["second"], measured(model, item).neurons["second"]
    )
    assert not any(m._forward_hooks for m in model.network.modules())


@pytest.mark.parametrize(
    ("noises", "draws", "layers"), [((), 1, ("first",)), (NOISES, 0, ("first",)), (NOISES, 1, ())]
)
def test_nothing_to_measure_is_refused(model, item, noises, draws, layers):
    with pytest.raises(InputError, match="at least one of each"):
        measured(model, item, noises, draws, layers)


def test_two_items_are_refused(model):
    with pytest.raises(InputError, match=r"use Batch\.item"):
        measured(model, Batch(torch.zeros(2, 4, 9, dtype=torch.float64)))


def test_an_unknown_layer_is_named(model, item):
    with pytest.raises(LayerNotFoundError, match="did you mean first"):
        measured(model, item, layers=("frist",))
