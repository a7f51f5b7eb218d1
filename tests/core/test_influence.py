from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds, length_mask
from nip_audio.core.influence import (
    linear_influence,
    neuron_influence,
    neuron_outputs,
    select_neurons,
)
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError, LayerNotFoundError
from tests.tolerance import assert_same_but_for_rounding

BOUNDS = Bounds(-10.0, 10.0)


class TwoLayer(nn.Module):
    """relu(W x), by hand; ``spare`` runs but nothing comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 2, bias=False)
        self.act = nn.ReLU()
        self.spare = nn.Linear(2, 2)
        self.hidden.weight.data = torch.tensor([[1.0, 0.0], [1.0, -1.0]])

    def forward(self, x, lengths=None):
        self.spare(x)
        return self.act(self.hidden(x))


class Pooled(nn.Module):
    """Convolution, ReLU, global average: a linear head on it has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3)
        self.map = nn.ReLU()

    def forward(self, x, lengths=None):
        return self.map(self.conv(x)).mean(dim=2)


class Summed(nn.Module):
    """Adds up every position, padding too: only the mask keeps that out of the influence."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Identity()

    def forward(self, x, lengths=None):
        return self.map(x).sum(dim=2)

    def tap_lengths(self, layer, lengths):
        return lengths


@pytest.fixture
def by_hand() -> InstrumentedModel:
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    return InstrumentedModel(TwoLayer(), head=head, bounds=BOUNDS).eval()


@pytest.fixture
def features() -> Batch:
    """Two items of 40 and 30 frames; the padding holds junk."""
    x = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(3))
    return Batch(x, torch.tensor([40, 30]))


@pytest.mark.parametrize("layer", ["act", "hidden"])
@pytest.mark.parametrize(
    ("x", "options", "expected"),
    [
        # relu(W x) = (2, 1), logits (5, 3)
        ([2.0, 1.0], {}, [4.0, 1.0]),
        ([2.0, 1.0], {"target": torch.tensor([1])}, [0.0, 3.0]),
        # softmax(5, 3)_0 = 0.880797; its slope p(1 − p) = 0.104994 times (W_0 − W_1) = (2, −2)
        ([2.0, 1.0], {"of": "confidence"}, [0.419974, -0.209987]),
        # W x = (1, −1): the second neuron is off
        ([1.0, 2.0], {}, [2.0, 0.0]),
    ],
)
def test_two_layer_model_by_hand(by_hand, layer, x, options, expected):
    got = neuron_influence(by_hand, Batch(torch.tensor([x])), layer, **options)
    torch.testing.assert_close(got, torch.tensor([expected]), atol=1e-6, rtol=1e-5)
    assert not got.requires_grad


@pytest.mark.parametrize("of", ["logit", "confidence"])
@pytest.mark.parametrize("target", [None, torch.tensor([1, 3, 0, 2])])
def test_closed_form_equals_autograd_on_a_pooled_linear_model(of, target):
    torch.manual_seed(0)
    model = InstrumentedModel(Pooled(), head=nn.Linear(5, 4), bounds=BOUNDS).eval()
    batch = Batch(torch.randn(4, 3, 20))
    got = neuron_influence(model, batch, "map", of=of, target=target)
    phi = model.embed_input(batch)
    expected = linear_influence(phi, model.head.weight, model.head.bias, of=of, target=target)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("of", ["logit", "confidence"])
@pytest.mark.parametrize("layer", ["frames.1", "frames.2.conv", "frames.4", "pool", "embedding"])
def test_finite_differences_agree_in_float64(tiny_model, features, layer, of):
    """Shift a neuron's map over the valid frames and watch y: any layer, behind a CosineHead."""
    model = tiny_model.double()
    model.scale = (
        2.0  # at 10 the confidence of a random model is near 0 or 1, and so are its slopes
    )
    batch = Batch(features.x.double(), features.lengths)
    target = torch.tensor([2, 0])
    got = neuron_influence(model, batch, layer, of=of, target=target)
    with model.tap(layer) as tap, torch.no_grad():
        model.embed_input(batch)
        activation = tap[layer]
    lengths = model.tap_lengths(layer, batch.lengths)
    valid = torch.ones_like(activation[:, 0])
    if activation.dim() == 3:
        valid = length_mask(lengths, activation.shape[2]).double()

    def y(neuron: int, step: float) -> torch.Tensor:
        def shift(module, args, output):
            output = output.clone()
            output[:, neuron] += step * valid
            return output

        handle = model.network.get_submodule(layer).register_forward_hook(shift)
        with torch.no_grad():
            logits = model.logits(model.score_embeddings(model.embed_input(batch)))
        handle.remove()
        values = logits if of == "logit" else logits.softmax(1)
        return values[torch.arange(2), target]

    h = 1e-6
    slopes = [(y(n, h) - y(n, -h)) / (2 * h) for n in range(activation.shape[1])]
    expected = torch.stack(slopes, dim=1) * neuron_outputs(activation, lengths)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-5)
    assert got.dtype == torch.float64


def test_bare_embedding_model_uses_the_length_along_its_own_direction(embedding_model, features):
    got = neuron_influence(embedding_model, features, "embedding")
    embedding = embedding_model.embed_input(features)
    expected = embedding**2 / embedding.norm(dim=1, keepdim=True)
    assert_same_but_for_rounding(got, expected, depth=1)


@pytest.mark.parametrize("layer", ["frames.0", "frames.2.conv", "frames.4"])
def test_padding_does_not_change_influence(tiny_model, features, layer):
    got = neuron_influence(tiny_model, features, layer)
    for i in range(2):
        alone = neuron_influence(tiny_model, features.item(i), layer)
        torch.testing.assert_close(got[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_positions_of_padding_are_left_out_of_value_and_gradient():
    model = InstrumentedModel(Summed(), head=nn.Identity(), bounds=BOUNDS)
    batch = Batch(torch.tensor([[[2.0, 4.0, 9.0, 9.0]]]), torch.tensor([2]))
    # φ is 3 and y grows by 1 a valid position
    assert neuron_influence(model, batch, "map").tolist() == [[6.0]]


def test_nothing_in_the_model_or_the_input_changes(tiny_model, features, hook_count):
    for parameter in tiny_model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    frozen = next(tiny_model.parameters()).requires_grad_(False)
    before = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    neuron_influence(tiny_model, features, "frames.4", of="confidence")
    assert all(p.grad.eq(7.0).all() for p in tiny_model.parameters())
    assert not frozen.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in tiny_model.state_dict().items())
    assert not features.x.requires_grad
    assert hook_count(tiny_model) == 0


def test_frozen_weights_and_no_grad_around_do_not_matter(tiny_model, features):
    expected = neuron_influence(tiny_model, features, "frames.4")
    tiny_model.requires_grad_(False)
    with torch.no_grad():
        got = neuron_influence(tiny_model, features, "frames.4")
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(got, expected)


def test_layer_the_decision_does_not_depend_on_is_an_error(by_hand):
    with pytest.raises(InputError, match="does not depend on layer 'spare'; tap a layer before"):
        neuron_influence(by_hand, Batch(torch.ones(1, 2)), "spare")


def test_unknown_layer_and_quantity_are_errors(by_hand, hook_count):
    batch = Batch(torch.ones(1, 2))
    with pytest.raises(LayerNotFoundError, match="did you mean hidden"):
        neuron_influence(by_hand, batch, "hiden")
    with pytest.raises(InputError, match="got of='probs', expected"):
        neuron_influence(by_hand, batch, "act", of="probs")
    with pytest.raises(InputError, match="got of='probs', expected"):
        linear_influence(torch.ones(1, 2), torch.ones(2, 2), of="probs")
    assert hook_count(by_hand) == 0


@pytest.mark.parametrize("options", [{"of": "confidence"}, {"target": torch.tensor([0, 1])}])
def test_class_of_a_bare_embedding_model_is_an_error(embedding_model, features, options):
    with pytest.raises(InputError, match="a bare embedding model has no classes"):
        neuron_influence(embedding_model, features, "frames.4", **options)


def test_neuron_outputs_of_vectors_maps_and_images():
    vector = torch.tensor([[1.0, -2.0]])
    assert neuron_outputs(vector, torch.tensor([1])) is vector
    assert neuron_outputs(torch.tensor([[[1.0, 3.0], [0.0, 8.0]]])).tolist() == [[2.0, 4.0]]
    image = torch.tensor([[[[1.0, 3.0, 9.0], [5.0, 7.0, 9.0]]]])
    assert neuron_outputs(image, torch.tensor([2])).tolist() == [[4.0]]


def test_selection_by_hand():
    influence = torch.tensor([[0.1, 0.9, -0.5, 0.3, 0.2], [5.0, 4.0, 3.0, 2.0, 1.0]])
    chosen = select_neurons(influence, front=2, tail=1)
    assert chosen.front.tolist() == [[1, 3], [0, 1]]
    assert chosen.tail.tolist() == [[2], [4]]
    assert chosen.remaining.tolist() == [[4, 0], [2, 3]]


def test_ties_keep_the_order_of_their_indices():
    chosen = select_neurons(torch.zeros(1, 5), front=2, tail=2)
    assert (chosen.front.tolist(), chosen.tail.tolist()) == ([[0, 1]], [[3, 4]])


@pytest.mark.parametrize(("front", "tail", "neurons"), [(0, 0, 3), (2, 0, 3), (0, 2, 3)])
def test_selection_may_leave_a_part_empty(front, tail, neurons):
    chosen = select_neurons(torch.arange(float(neurons))[None], front=front, tail=tail)
    assert (chosen.front.shape[1], chosen.tail.shape[1]) == (front, tail)
    parts = torch.cat([chosen.front, chosen.remaining, chosen.tail], dim=1)
    assert sorted(parts[0].tolist()) == list(range(neurons))


@pytest.mark.parametrize(("front", "tail"), [(-1, 1), (1, -1), (2, 1), (3, 0), (9, 9)])
def test_selection_refuses_senseless_counts(front, tail):
    with pytest.raises(InputError, match="of 3 neurons, expected two counts ≥ 0"):
        select_neurons(torch.zeros(1, 3), front=front, tail=tail)


def test_any_differentiable_head_will_do(by_hand):
    model = by_hand.with_head(CosineHead(torch.eye(2)))
    # φ = (2, 1), cosine to (1, 0) is 2/√5; its gradient (1, −2)/√125
    got = neuron_influence(model, Batch(torch.tensor([[2.0, 1.0]])), "act")
    torch.testing.assert_close(got, torch.tensor([[2.0, -2.0]]) / 125**0.5)
