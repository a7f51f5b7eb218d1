from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.models.audionet import AudioNet
from nip_audio.models.channel_suppression import ChannelSuppression


@pytest.fixture
def module() -> ChannelSuppression:
    """Class 0 is spoken for by channel 0, class 1 by channel 1."""
    module = ChannelSuppression(2, 2)
    module.classifier.weight.data = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    module.classifier.bias.data.zero_()
    return module


def test_the_named_class_weighs_the_channels(module):
    x = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 1.0], [2.0, 2.0]]])
    expected = [[[2, 6], [0, 0]], [[0, 0.5], [6, 6]]]
    torch.testing.assert_close(module(x), torch.tensor(expected, dtype=torch.float32))


def test_a_class_that_is_told_weighs_them_instead_and_is_forgotten(module):
    x = torch.tensor([[[1.0, 3.0], [0.5, 0.5]]])
    with module.given_labels(torch.tensor([1])):
        told = module(x)
    torch.testing.assert_close(told, torch.tensor([[[0.5, 1.5], [1.5, 1.5]]]))
    torch.testing.assert_close(module(x), torch.tensor([[[2.0, 6.0], [-0.5, -0.5]]]))
    with pytest.raises(RuntimeError, match="inside"), module.given_labels(torch.tensor([1])):
        raise RuntimeError("inside")
    torch.testing.assert_close(module(x), torch.tensor([[[2.0, 6.0], [-0.5, -0.5]]]))


def test_padding_has_no_say(module):
    x = torch.tensor([[[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 90.0, 90.0]]])
    out = module(x, torch.tensor([2]))
    torch.testing.assert_close(out[..., :2], module(x[..., :2]))
    assert not torch.allclose(module(x)[..., :2], out[..., :2])


def test_classes_must_be_told():
    with pytest.raises(
        InputError, match="CAS has 0 classes, expected at least two; pass n_classes"
    ):
        AudioNet(defence="cas")


def test_embeddings_stay_non_negative():
    network = AudioNet(defence="cas", n_classes=5).eval()
    assert list(network.defences) == ["5"]
    assert network(torch.rand(3, 32, 60), torch.tensor([60, 40, 30])).min() >= 0
