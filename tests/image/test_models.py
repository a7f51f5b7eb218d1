"""Networks of pictures: what they return, what they refuse, and that layers can be tapped."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from nip_audio.attacks.one_pixel import _largest_change_only
from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_influence
from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.image.models.cifar_resnet import CifarResNet
from nip_audio.image.models.lenet import LeNet1, LeNet4, LeNet5
from nip_audio.image.models.small_vgg import SmallVgg
from nip_audio.image.models.torchvision_models import TorchvisionNet
from nip_audio.training.image_training import image_model

NETWORKS = {
    "LeNet-1": (lambda: LeNet1(), 1, 28, "flatten"),
    "LeNet-4": (lambda: LeNet4(), 1, 28, "dense.0"),
    "LeNet-5": (lambda: LeNet5(3, 32), 3, 32, "convs.1"),
    "ResNet-20": (lambda: CifarResNet(width=4), 3, 32, "pool"),
    "VGG": (lambda: SmallVgg(4), 3, 32, "pairs.2"),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_embeds_and_can_be_looked_into(name):
    make, channels, size, layer = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    x = torch.rand(3, channels, size, size)
    model = image_model(network, nn.Linear(network.embedding_dim, 4), tuple("abcd")).eval()
    embeddings = model.embed(Batch(x))
    assert embeddings.shape == (3, network.embedding_dim)
    torch.testing.assert_close(embeddings[1:2], model.embed(Batch(x[1:2])), atol=1e-5, rtol=1e-4)
    influence = neuron_influence(model, Batch(x), layer)
    assert influence.shape[0] == 3
    assert bool((influence != 0).any())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_other_shapes_are_refused(name):
    make, channels, size, _ = NETWORKS[name]
    with pytest.raises(InputError, match="expected"):
        make()(torch.rand(1, 4 - channels, size, size))
    with pytest.raises(InputError, match="expected"):
        make()(torch.rand(channels, size, size))


def test_senseless_sizes_are_refused():
    with pytest.raises(InputError):
        CifarResNet(blocks=0)
    with pytest.raises(InputError):
        SmallVgg(0)


def test_torchvision_is_asked_for_by_name(monkeypatch):
    with pytest.raises(InputError, match="resnet34"):
        TorchvisionNet("resnet35")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match="images"):
        TorchvisionNet("resnet34")


def test_one_pixel_of_a_picture_is_changed_with_all_its_channels():
    clean = torch.full((2, 3, 4, 4), 0.5)
    x = clean + 0.001
    x[0, :, 1, 2] = torch.tensor([1.0, 0.0, 0.4])
    x[1, 0, 3, 3] = 0.9
    kept = _largest_change_only(x, clean) != clean
    assert kept.any(dim=1).flatten(1).sum(dim=1).tolist() == [1, 1]
    assert kept[0, :, 1, 2].tolist() == [True, True, True]
    assert bool(kept[1, 0, 3, 3])
