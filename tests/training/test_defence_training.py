"""What proactive defences add to a training step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nip_audio.core.taps import tap_layers
from nip_audio.errors import InputError, LayerNotFoundError
from nip_audio.models.audionet import AudioNet
from nip_audio.models.resnet34 import ResNet34
from nip_audio.training.defence_training import Stabilising, Suppressing, defence_training
from nip_audio.training.neuron_stabilising import sensitivity, stabilising_loss

LAYERS = ["layers.0", "layers.5"]
HPARAMS = {
    "adversarial_attack": "pgd",
    "adversarial_share": 0.5,
    "defence_share": 0.1,
    "defence_layers": LAYERS,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def wavs() -> torch.Tensor:
    """Features stand in for waveforms: what they are is the embedding function's business."""
    return torch.rand(4, 32, 60, generator=seeded())


@pytest.fixture
def benign(wavs) -> torch.Tensor:
    return wavs[:2] + 0.1 * torch.randn(2, 32, 60, generator=seeded(1))


LABELS = torch.tensor([0, 1, 2, 0])


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_no_defence_adds_nothing(wavs, benign):
    for name in (None, "feature-denoising"):
        network = AudioNet(defence=name).eval()
        step = defence_training({"defence_training": name}, network)
        embeddings, added = step(network, wavs, benign, LABELS)
        assert torch.equal(embeddings, network(wavs))
        assert added.item() == 0.0


def test_sensitivity_by_hand():
    benign = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [1.0, 1.0]]])
    adversarial = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [5.0, 1.0]]])
    assert sensitivity(benign, adversarial).tolist() == [0.5, 1.0]


def test_only_the_most_sensitive_neurons_are_held_still():
    benign = torch.zeros(1, 10, requires_grad=True)
    moved = torch.arange(10.0)[None]
    loss = stabilising_loss([(benign, moved)], share=0.2)
    assert loss.item() == 8.5
    (gradient,) = torch.autograd.grad(loss, benign)
    assert gradient.tolist() == [[0.0] * 8 + [-0.5] * 2]
    both = stabilising_loss([(benign, moved), (moved, moved)], share=0.01)
    assert both.item() == 4.5  # one neuron at least, mean over layers


def test_sns_compares_each_adversarial_crop_with_its_own_original(wavs, benign):
    network = AudioNet().eval()
    step = Stabilising(network, layers=LAYERS, weight=3.0, share=0.25)
    embeddings, added = step(network, wavs, benign, LABELS)
    torch.testing.assert_close(embeddings, network(wavs))
    with tap_layers(network, LAYERS) as tap:
        network(benign)
        originals = [tap[name] for name in LAYERS]
        network(wavs[:2])
        pairs = [(before, tap[name]) for before, name in zip(originals, LAYERS, strict=True)]
    torch.testing.assert_close(added, 3.0 * stabilising_loss(pairs, share=0.25))
    assert added.item() > 0
    assert hooks(network) == 0


def test_sns_makes_neurons_less_sensitive(wavs, benign):
    torch.manual_seed(0)
    network = AudioNet()
    step = Stabilising(network, layers=LAYERS, share=0.5)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.003)
    losses = []
    for _ in range(15):
        _, added = step(network, wavs, benign, LABELS)
        optimiser.zero_grad()
        added.backward()
        optimiser.step()
        losses.append(added.item())
    assert losses[-1] < 0.7 * losses[0]


def test_cas_tells_the_classes_and_adds_the_auxiliary_loss(wavs, benign):
    torch.manual_seed(0)
    network = AudioNet(defence="cas", n_classes=3).eval()
    module = network.defences["5"]
    scores = []
    handle = module.classifier.register_forward_hook(lambda m, a, out: scores.append(out))
    step = Suppressing(network, weight=2.0)
    embeddings, added = step(network, wavs, benign, LABELS)
    handle.remove()
    torch.testing.assert_close(added, 2.0 * cross_entropy(scores[0], LABELS))
    with module.given_labels(LABELS):
        torch.testing.assert_close(embeddings, network(wavs))
    named = scores[0].argmax(dim=1)
    assert not torch.equal(named, LABELS)
    assert not torch.allclose(network(wavs), embeddings)  # at test time nobody is told
    assert hooks(network) == 0


@pytest.mark.parametrize("name", ["cas", "sns"])
def test_the_weight_is_the_methods_own_unless_given(name):
    network = AudioNet(defence="cas", n_classes=3)
    own = defence_training(HPARAMS | {"defence_training": name}, network)
    assert own.weight == {"cas": 2.0, "sns": 1.0}[name]
    given = defence_training(HPARAMS | {"defence_training": name, "defence_weight": 0.3}, network)
    assert given.weight == 0.3


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"defence_training": "cast"}, InputError, "'cast', expected null, cas, sns or feature-"),
        ({"defence_training": "cas"}, InputError, "no ChannelSuppression, which cas needs"),
        (
            {"defence_training": "feature-denoising"},
            InputError,
            "AudioNet has no DenoisingBlock, .* pass defence: feature-denoising to the network",
        ),
        (
            {"defence_training": "sns", "adversarial_attack": None},
            InputError,
            "sns got no adversarial crops, .* pass --adversarial_attack=pgd",
        ),
        ({"defence_training": "sns", "defence_share": 0}, InputError, "share is 0, expected more"),
        (
            {"defence_training": "sns", "defence_layers": []},
            InputError,
            "got no layers to stabilise",
        ),
        (
            {"defence_training": "sns", "defence_layers": ["layer.0"]},
            LayerNotFoundError,
            "did you mean layers.0",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        defence_training(HPARAMS | changes, AudioNet())


def test_feature_denoising_is_refused_for_a_network_that_cannot_have_it():
    with pytest.raises(InputError, match="ResNet34 has no DenoisingBlock"):
        defence_training({"defence_training": "feature-denoising"}, ResNet34())
