"""SpeechBrain's own networks as instrumented models: gradients, taps, influence, NCCR."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.influence import neuron_influence, neuron_outputs
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.errors import LayerNotFoundError
from nip_audio.models.sources.speechbrain_modules import instrument

pytestmark = pytest.mark.usefixtures("own_global_generator")

LAYERS = {"ecapa": "blocks.1", "xvector": "blocks.3"}


@pytest.mark.parametrize("norm_type", ["sentence", "global"])
@pytest.mark.parametrize("std_norm", [True, False])
def test_gradient_reaches_the_waveform(make_speechbrain, padded, kind, norm_type, std_norm):
    normalization = InputNormalization(norm_type=norm_type, std_norm=std_norm)
    normalization(torch.randn(4, 50, 24))  # learns its statistics
    model = instrument(make_speechbrain(kind, normalization=normalization))
    batch = padded
    x = batch.x.clone().requires_grad_(True)
    y = model.logits(model.scores(batch.with_x(x)))[:, 1].sum()
    (gradient,) = torch.autograd.grad(y, x)
    assert gradient.isfinite().all()
    assert (gradient.norm(dim=1) > 0).all()
    # nothing beyond an item's end
    assert gradient[1, 5217:].eq(0).all()


def test_normalisation_learns_nothing_even_in_training_mode(make_speechbrain, waveforms):
    normalization = InputNormalization(norm_type="global")
    normalization(torch.randn(4, 50, 24))
    theirs = make_speechbrain(normalization=normalization, freeze_params=False)
    model = instrument(theirs)
    before = (normalization.count, normalization.glob_mean.clone())
    model.scores(Batch(waveforms()))
    model.train().scores(Batch(waveforms()))
    assert normalization.count == before[0]
    assert torch.equal(normalization.glob_mean, before[1])
    assert model.network.training
    assert not model.front_end.training


@pytest.mark.parametrize("layers", [("blocks.0", "blocks.2.se_block.conv1", "asp_bn", "fc")])
def test_ecapa_taps_hold_channels_first(make_speechbrain, waveforms, layers):
    model = instrument(make_speechbrain("ecapa"))
    batch = Batch(waveforms())
    with model.tap(*layers) as tap:
        embeddings = model.embed(batch)
    shapes = {layer: tuple(tap[layer].shape) for layer in layers}
    assert shapes == dict(zip(layers, [(2, 16, 51), (2, 8), (2, 48), (2, 12)], strict=True))
    torch.testing.assert_close(tap["fc"], embeddings)


def test_xvector_taps_hold_channels_first_whichever_way_the_layer_works(
    make_speechbrain, waveforms
):
    model = instrument(make_speechbrain("xvector"))
    layers = ("blocks.3", "blocks.3.conv", "blocks.4", "blocks.5", "blocks.5.norm", "blocks.15")
    layers += ("blocks.16", "blocks.16.w")
    with model.tap(*layers) as tap:
        embeddings = model.embed(Batch(waveforms()))
    assert all(tap[layer].shape == (2, 16, 51) for layer in layers[:5])
    assert torch.equal(tap["blocks.3"], tap["blocks.3.conv"])
    assert torch.equal(tap["blocks.5"], tap["blocks.5.norm"])
    assert tap["blocks.15"].shape == (2, 40)
    assert torch.equal(tap["blocks.16"], embeddings)
    assert torch.equal(tap["blocks.16.w"], embeddings)


def test_tap_changes_nothing_and_leaves_no_hook(make_speechbrain, padded, kind, hook_count):
    model = instrument(make_speechbrain(kind))
    batch = padded
    before = hook_count(model)
    alone = model.scores(batch)
    names = [
        n for n, m in model.network.embedding_model.named_modules() if n and not list(m.children())
    ]
    with model.tap(*names):
        assert torch.equal(model.scores(batch), alone)
    with pytest.raises(LayerNotFoundError, match="'blocks.99' does not exist in"):
        model.tap("blocks.99").__enter__()
    with pytest.raises(RuntimeError), model.tap(names[0]):
        raise RuntimeError
    assert hook_count(model) == before


def test_embedding_model_of_another_kind_is_tapped_as_it_is(make_speechbrain, padded):
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(24, 12)

        def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
            return self.inner(features).mean(dim=1, keepdim=True)

    theirs = make_speechbrain()
    theirs.mods["embedding_model"] = Pool()
    model = instrument(theirs)
    batch = padded
    with model.tap("inner") as tap:
        assert model.scores(batch).shape == (4, 4)
    assert tap["inner"].shape == (4, 51, 12)
    assert model.tap_lengths("inner", batch.lengths) is None


def test_influence_runs_and_shifting_a_neuron_confirms_it(make_speechbrain, padded, kind):
    """σ = (∂y/∂φ)∘φ: compare with what a small shift of one whole map does to the logit."""
    # not x-vector's own classifier: its softmax returns float32 whatever it is given
    model = instrument(make_speechbrain(kind, classifier=nn.Linear(12, 4)))
    batch = padded
    inputs = model.to_input(batch)
    inputs = inputs.with_x(inputs.x.double())
    model.double()
    layer = LAYERS[kind]
    target = torch.tensor([0, 1, 2, 3])
    influence = neuron_influence(model, inputs, layer, target=target)
    assert influence.shape == (4, 16)
    with model.tap(layer) as tap:
        model.embed_input(inputs)
    lengths = model.tap_lengths(layer, inputs.lengths)
    outputs = neuron_outputs(tap[layer], lengths)
    neuron, step = 3, 1e-5

    def logit(shift: float) -> Tensor:
        def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            mask = (torch.arange(51)[None] < lengths[:, None]).double()
            channel = torch.zeros(16, dtype=torch.float64)
            channel[neuron] = shift
            change = mask[:, None] * channel[None, :, None]
            return output + (change if kind == "ecapa" else change.transpose(1, 2))

        handle = model.network.embedding_model.get_submodule(layer).register_forward_hook(add)
        try:
            logits = model.logits(model.score_embeddings(model.embed_input(inputs)))
        finally:
            handle.remove()
        return logits.gather(1, target[:, None])[:, 0]

    slope = (logit(step) - logit(-step)) / (2 * step)
    expected = slope * outputs[:, neuron]
    torch.testing.assert_close(influence[:, neuron], expected, atol=1e-6, rtol=1e-4)


def test_nccr_runs_and_repeats(make_speechbrain, waveforms, kind):
    model = instrument(make_speechbrain(kind))
    config = NccrConfig(
        layers=(LAYERS[kind], "blocks.2"),
        noises=(
            Noise("gaussian", "raw", 0.01),
            Noise("gaussian", "input", 0.01),
            Noise("mask", "input", 0.1),
        ),
        draws=3,
    )

    def vector() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return measure_nccr(model, Batch(waveforms(1)), config, generator=generator).vector

    first = vector()
    assert first.shape == (6,)
    assert (first > 0).all()
    assert first.isfinite().all()
    assert torch.equal(vector(), first)


def test_levels_of_bands_lie_in_the_bounds_and_other_features_have_none(make_speechbrain):
    model = instrument(make_speechbrain())
    assert (model.bounds, model.input_bounds) == (Bounds(-1.0, 1.0), Bounds(0.0, 1.0))
    loudest = torch.sin(torch.arange(16000) * 0.5)[None].sign()
    x = model.to_input(Batch(torch.cat([loudest, torch.zeros(1, 16000)]))).x
    assert 0 <= float(x.min()) < 1e-6
    assert 0.5 < float(x.max()) < 1  # not clipped
    theirs = make_speechbrain()
    theirs.mods.compute_features.deltas = True
    x = torch.tensor([-1e6, 1e6])
    assert torch.equal(instrument(theirs).input_bounds.clip(x), x)


def test_parameters_stay_the_users(make_speechbrain, waveforms, kind):
    theirs = make_speechbrain(kind)
    before = {name: t.clone() for name, t in theirs.state_dict().items()}
    model = instrument(theirs)
    neuron_influence(model, model.to_input(Batch(waveforms())), LAYERS[kind])
    assert all(torch.equal(t, before[name]) for name, t in theirs.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    ours = {id(p) for p in model.parameters()}
    assert ours == {id(p) for p in theirs.mods.parameters()}
