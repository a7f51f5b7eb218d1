from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.purifiers.inverse_net import InverseNet
from tests.tolerance import assert_same_but_for_rounding, depth_of


@pytest.fixture
def net() -> InverseNet:
    """A network that does change something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = InverseNet(width=4)
        torch.nn.init.normal_(net.out.weight, std=0.1)
        torch.nn.init.normal_(net.out.bias, std=0.1)
    return net.eval()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 101), (64, 4), (2, 1)])
def test_any_size_keeps_its_shape(net, shape):
    x = torch.rand(2, 1, *shape)
    assert net(x).shape == x.shape


def test_untrained_it_changes_nothing():
    assert torch.equal(InverseNet(3, width=4)(torch.rand(1, 3, 32, 32)), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("lengths", [(21, 13), (24, 1), (23, 16), (22, 18)])
def test_padding_and_neighbours_do_not_matter(net, lengths):
    items = [torch.rand(1, 12, n) for n in lengths]
    batch = Batch.collate(items)
    together = net(batch.x, batch.lengths)
    for i, item in enumerate(items):
        alone = net(item[None])[0]
        valid = together[i, ..., : item.shape[-1]]
        assert_same_but_for_rounding(valid, alone, depth=depth_of(net), size=1.0)
        assert not together[i, ..., item.shape[-1] :].any()


def test_every_value_is_within_reach_of_its_surroundings(net):
    x = torch.rand(1, 1, 16, 40).requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(x)[0, 0, 8, 20], x)
    assert gradient[0, 0, 8, 12:29].ne(0).any(dim=0).all()


@pytest.mark.parametrize("shape", [(2, 40, 10), (2, 3, 40, 10)])
def test_other_inputs_are_refused(net, shape):
    with pytest.raises(InputError, match=r"expected \(items, 1, rows, columns\)"):
        net(torch.rand(shape))


def test_no_channels_are_refused():
    with pytest.raises(InputError, match="expected at least 1"):
        InverseNet(0)
