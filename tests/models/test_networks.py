"""What every network keeps, each behind its log-mel front end: one contract for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, AttentiveStatisticsPooling
from torch import Tensor, nn

from nip_audio.audio.features import LogMel
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.taps import tap_layers
from nip_audio.errors import InputError
from nip_audio.models._masking import halved, remove_level
from nip_audio.models.attentive import AttentivePool
from nip_audio.models.audionet import AudioNet
from nip_audio.models.deep_speaker import DeepSpeaker
from nip_audio.models.ecapa import EcapaTdnn
from nip_audio.models.resnet34 import BasicBlock, ResNet34
from nip_audio.models.xvector import Xvector
from tests.tolerance import assert_same_but_for_rounding, depth_of

BANDS = {"resnet34": 20, "deep_speaker": 20, "audionet": 32, "xvector": 40}  # 20, 10, 5, 3, …
BANDS |= {"resnet34 with attentive": 40, "ecapa": 16}
MIN_FRAMES = {"resnet34": 1, "deep_speaker": 1, "audionet": 24, "xvector": 15}
MIN_FRAMES |= {"resnet34 with attentive": 1, "ecapa": 1}
ATTENTIVE = {"pooling": "attentive", "attention_channels": 16}
for kind in ("cas", "feature-denoising", "statistics", "layers"):
    BANDS[f"audionet with {kind}"], MIN_FRAMES[f"audionet with {kind}"] = 32, 24
NARROW: dict[str, Callable[[], nn.Module]] = {
    "resnet34": lambda: ResNet34(width=4),
    "resnet34 with attentive": lambda: ResNet34(width=4, n_mels=40, embedding_dim=6, **ATTENTIVE),
    "ecapa": lambda: EcapaTdnn(
        16,
        channels=[16, 16, 16, 12],
        embedding_dim=6,
        attention_channels=8,
        se_channels=8,
        res2net_scale=4,
    ),
    "deep_speaker": lambda: DeepSpeaker(20, channels=[4, 6, 8], blocks=2, embedding_dim=6),
    "audionet": lambda: AudioNet(),
    "audionet with cas": lambda: AudioNet(defence="cas", n_classes=5),
    "audionet with feature-denoising": lambda: AudioNet(defence="feature-denoising"),
    "audionet with statistics": lambda: AudioNet(pooling="statistics"),
    "audionet with layers": lambda: AudioNet(pooling="layers"),
    "xvector": lambda: Xvector(channels=[8, 8, 8, 8, 12], embedding_dim=6),
}
# (network, bands, frames), small enough to differentiate by differences
TINY: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnet34": (lambda: ResNet34(width=2, blocks=(1, 1)), 6, 9),
    "resnet34 with attentive": (
        lambda: ResNet34(width=2, blocks=(1, 1), n_mels=6, embedding_dim=2, **ATTENTIVE),
        6,
        9,
    ),
    "ecapa": (
        lambda: EcapaTdnn(
            4,
            channels=[4, 4, 4],
            embedding_dim=2,
            attention_channels=2,
            se_channels=2,
            res2net_scale=2,
        ),
        4,
        9,
    ),
    "deep_speaker": (lambda: DeepSpeaker(6, channels=[2, 3], blocks=1, embedding_dim=3), 6, 9),
    "audionet": (lambda: AudioNet(2), 2, 27),
    "audionet with cas": (lambda: AudioNet(2, defence="cas", n_classes=3), 2, 27),
    "audionet with feature-denoising": (lambda: AudioNet(2, defence="feature-denoising"), 2, 27),
    "audionet with statistics": (lambda: AudioNet(2, pooling="statistics"), 2, 27),
    "audionet with layers": (lambda: AudioNet(2, pooling="layers"), 2, 27),
    "xvector": (lambda: Xvector(3, channels=[3] * 5, embedding_dim=2), 3, 18),
}


def randomised(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network in which a mistake shows.

    A fresh deep network maps everything to nearly one point, and fresh normalisation leaves the
    zeros of the padding zero: either would make a leak look like none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        for module in network.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, 0.0, 0.2)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.3, 1.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.2, 0.3)
        for module in network.modules():
            if isinstance(module, AttentiveStatisticsPooling):
                module.tdnn.conv.conv.weight.data *= 0.01  # or its hyperbolic tangent is constant
    return network.eval()


def random_input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def junk_behind(x: Tensor, lengths: Tensor) -> Tensor:
    x = x.clone()
    for row, length in zip(x, lengths, strict=True):
        row[..., length:] = 0.9
    return x


def embed_and_tap(network: nn.Module, x: Tensor, lengths: Tensor | None = None):
    """Embed, and return the output of every layer that still has a time axis too."""
    containers = nn.ModuleList | nn.ModuleDict
    names = [n for n, m in network.named_modules() if n and not isinstance(m, containers)]
    with tap_layers(network, names) as tap, torch.no_grad():
        embeddings = network(x, lengths)
    return embeddings, {n: tap[n] for n in names if tap[n].dim() > 2}


@pytest.fixture(params=list(NARROW))
def name(request) -> str:
    return request.param


@pytest.fixture
def network(name) -> nn.Module:
    return randomised(NARROW[name]).double()


@pytest.fixture
def model(name) -> InstrumentedModel:
    return InstrumentedModel(
        randomised(NARROW[name]),
        front_end=LogMel(n_mels=BANDS[name]),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
    ).eval()


@pytest.fixture
def waves(name, voice) -> Batch:
    """Five voices; the last is as short as may be."""
    lengths = (8001, 6399, 4321, 5120, 160 * (MIN_FRAMES[name] - 1) + 1)
    return Batch.collate([torch.from_numpy(voice(i, 0)[:n]) for i, n in enumerate(lengths)])


def test_every_layer_of_a_padded_batch_equals_that_of_its_single_items(name, network):
    lengths = torch.tensor([d + MIN_FRAMES[name] for d in (0, 1, 2, 3, 6, 13, 30, 32)])
    x = junk_behind(random_input(len(lengths), BANDS[name], int(lengths.max())), lengths)
    together, layers_together = embed_and_tap(network, x, lengths)
    assert (together.std(dim=0) > 0.005 * together.abs().max()).any()  # the items do differ
    for i, length in enumerate(lengths):
        alone, layers_alone = embed_and_tap(network, x[i : i + 1, :, :length])
        torch.testing.assert_close(together[i : i + 1], alone)
        for layer, output in layers_alone.items():
            valid = int(network.tap_lengths(layer, length))
            torch.testing.assert_close(layers_together[layer][i : i + 1, ..., :valid], output)


def test_tap_lengths_are_those_of_every_layer_before_the_pooling(name, network):
    for length in range(MIN_FRAMES[name], MIN_FRAMES[name] + 34):
        _, layers = embed_and_tap(network, random_input(1, BANDS[name], length))
        assert len(layers) > 10
        got = {n: network.tap_lengths(n, torch.tensor([length])).tolist() for n in layers}
        assert got == {n: [output.shape[-1]] for n, output in layers.items()}


@torch.no_grad()
def test_padded_sound_equals_single_sounds(model, waves):
    together = model.embed(waves)
    for i in range(len(waves)):
        alone = model.embed(waves.item(i))
        assert_same_but_for_rounding(together[i : i + 1], alone, depth=depth_of(model))


def test_values_in_the_padding_do_not_matter_and_get_no_gradient(model, waves):
    junk = junk_behind(waves.x, waves.lengths).requires_grad_(True)
    embeddings = model.embed(waves.with_x(junk))
    torch.testing.assert_close(embeddings, model.embed(waves), atol=0, rtol=0)
    readout = random_input(embeddings.shape[1], dtype=torch.float32)
    (gradient,) = torch.autograd.grad((embeddings @ readout).sum(), junk)
    for row, length in zip(gradient, waves.lengths, strict=True):
        assert row[length:].eq(0).all()
        assert (row[:length] != 0).float().mean() > 0.9


def test_gradient_reaches_every_parameter(network, name):
    embeddings = network(random_input(3, BANDS[name], 60))
    readout = random_input(embeddings.shape[1])  # not a norm, which may be fixed
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad((embeddings @ readout).sum(), parameters, allow_unused=True)
    missed = [n for n, g in zip(names, gradients, strict=True) if g is None or not g.any()]
    # CAS's auxiliary bias has a part in the choice of a class only, which has no gradient
    assert missed == (["defences.5.classifier.bias"] if name == "audionet with cas" else [])


@torch.no_grad()
def test_gain_does_not_matter_until_it_clips(model, waves):
    reference = model.embed(waves.item(0))
    for gain in (0.25, 2.0, 4.0):  # no band leaves −60 to 40 dB
        other = model.embed(Batch(gain * waves.item(0).x))
        assert_same_but_for_rounding(other, reference, depth=depth_of(model))
    faint = model.embed(Batch(1e-4 * waves.item(0).x))
    assert (faint - reference).abs().max() > 1e-3 * reference.abs().max()


@torch.no_grad()
def test_evaluation_is_deterministic_and_draws_nothing(model, waves):
    state = torch.get_rng_state()
    first = model.embed(waves)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.embed(waves), first)


@torch.no_grad()
def test_state_makes_another_network_the_same(name, network):
    x = random_input(2, BANDS[name], 40)
    other = randomised(NARROW[name], seed=1).double()
    assert not torch.allclose(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name, dtype):
    network = randomised(NARROW[name]).to(dtype)
    x = random_input(2, BANDS[name], 40, dtype=dtype)
    assert network(x, torch.tensor([40, 31])).dtype == network(x).dtype == dtype


@pytest.mark.parametrize("tiny", list(TINY))
def test_gradient_is_that_of_finite_differences(tiny):
    build, bands, frames = TINY[tiny]
    network = randomised(build).double()
    x = random_input(2, bands, frames).requires_grad_(True)
    lengths = torch.tensor([frames, frames - 3])
    assert torch.autograd.gradcheck(lambda x: network(x, lengths), x)


def test_too_few_frames_are_an_error(name, network):
    fewest = MIN_FRAMES[name]
    assert network.min_frames == fewest
    assert network(random_input(1, BANDS[name], fewest)).isfinite().all()
    message = f"an item has {fewest - 1} frames, expected at least {fewest}; use longer audio"
    with pytest.raises(InputError, match=message):
        network(random_input(2, BANDS[name], fewest - 1))
    with pytest.raises(InputError, match=message):
        network(random_input(2, BANDS[name], 40), torch.tensor([40, fewest - 1]))


@pytest.mark.parametrize(
    "name", ["deep_speaker", "audionet", "resnet34 with attentive", "ecapa"], indirect=True
)
def test_features_of_another_front_end_are_an_error(name, network):
    with pytest.raises(
        InputError,
        match=rf"have 24 bands, expected {BANDS[name]}; use the same n_mels for the front",
    ):
        network(random_input(2, 24, 40))


def test_audionet_pools_the_maximum_or_the_mean_and_the_deviation():
    largest, both = randomised(AudioNet), randomised(lambda: AudioNet(pooling="statistics"))
    every = randomised(lambda: AudioNet(pooling="layers"))
    x = random_input(2, 32, 60, dtype=torch.float32)

    def statistics(y: Tensor) -> Tensor:
        return torch.cat([y.mean(dim=2), (y.var(dim=2, correction=0) + 1e-5).sqrt()], dim=1)

    def outputs(network: AudioNet) -> list[Tensor]:
        y = network.prefilter(remove_level(x, None)[:, None])[:, 0]
        return [y, *(y := layer(y) for layer in network.layers)]

    with torch.no_grad():
        *_, last = outputs(largest)
        assert torch.allclose(largest(x), last.amax(dim=2))
        *_, last = outputs(both)
        assert torch.allclose(both(x), statistics(last), atol=1e-5)
        pooled = torch.cat([statistics(y) for y in outputs(every)], dim=1)
        assert torch.allclose(every(x), every.projection(pooled), atol=1e-5)
    dims = [network.embedding_dim for network in (largest, both, every)]
    assert dims == [32, 64, 128]
    with pytest.raises(InputError, match="pooling is 'mean', expected one of"):
        AudioNet(pooling="mean")


def test_halved_rounds_up():
    assert halved(torch.tensor([1, 2, 3, 8, 9])).tolist() == [1, 1, 2, 4, 5]


def test_deep_speaker_embeds_on_a_sphere():
    network = randomised(lambda: DeepSpeaker(8, channels=[4], embedding_dim=3, radius=5.0))
    norms = network(random_input(4, 8, 9, dtype=torch.float32)).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((4,), 5.0))


@pytest.mark.parametrize("options", [{"channels": []}, {"radius": 0.0}])
def test_deep_speaker_refuses_sizes_that_make_no_network(options):
    with pytest.raises(InputError, match="expected at least one stage and a radius above 0"):
        DeepSpeaker(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling is 'mean', expected one of"),
        ({"pooling": "attentive", "n_mels": 40}, "embedding_dim None for attentive pooling"),
        ({"embedding_dim": 6}, "embedding_dim 6 for average pooling"),
    ],
)
def test_resnet34_refuses_a_pooling_without_what_it_needs(options, message):
    with pytest.raises(InputError, match=message):
        ResNet34(width=2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [8, 8]}, "got 2 channel counts, expected 3 to 5"),
        ({"channels": [8, 12, 8]}, "res2net_scale 8 does not divide"),
    ],
)
def test_ecapa_refuses_channels_that_make_no_network(options, message):
    with pytest.raises(InputError, match=message):
        EcapaTdnn(8, **options)


@torch.no_grad()
def test_attentive_pooling_is_speechbrains():
    ours = randomised(lambda: AttentivePool(6, 4))
    theirs = AttentiveStatisticsPooling(6, 4).eval()
    theirs.load_state_dict(ours.state_dict())
    x = random_input(3, 6, 20, dtype=torch.float32)
    relative = torch.tensor([1.0, 0.4, 0.05])
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x, relative), theirs(x, relative))


@torch.no_grad()
def test_ecapa_is_speechbrains_but_for_the_ends_of_an_item():
    ours = randomised(NARROW["ecapa"])
    theirs = ECAPA_TDNN(
        16,
        channels=[16, 16, 16, 12],
        kernel_sizes=[5, 3, 3, 1],
        dilations=[1, 2, 3, 1],
        groups=[1] * 4,
        lin_neurons=6,
        attention_channels=8,
        se_channels=8,
        res2net_scale=4,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    x = random_input(2, 16, 60, dtype=torch.float32)
    with tap_layers(ours, ["blocks.0"]) as tap:
        ours(x)
        first = tap["blocks.0"]
    with tap_layers(theirs, ["blocks.0"]) as tap:
        theirs(remove_level(x, None).transpose(1, 2))
    torch.testing.assert_close(first[..., 2:-2], tap["blocks.0"][..., 2:-2])
    assert not torch.allclose(first, tap["blocks.0"])


@pytest.mark.parametrize("shape", [(4, 8, 1), (4, 4, 2)])
def test_block_that_changes_its_shape_needs_a_projection(shape):
    channels, out_channels, stride = shape
    with pytest.raises(InputError, match="which needs project=True"):
        BasicBlock(channels, out_channels, stride=stride)
