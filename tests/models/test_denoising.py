from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.models.audionet import AudioNet
from nip_audio.models.denoising import DenoisingBlock

EVERY = pytest.mark.parametrize("kind", ["gaussian", "dot", "mean"])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))


def trained(kind: str) -> DenoisingBlock:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        block = DenoisingBlock(4, kind=kind)
        torch.nn.init.uniform_(block.norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(block.norm.bias)
    return block.eval()


def identity(kind: str) -> DenoisingBlock:
    """A block that adds what its filter returns."""
    block = DenoisingBlock(4, kind=kind).eval()
    torch.nn.init.ones_(block.norm.weight)
    block.norm.eps = 1e-20
    block.conv.weight.data = torch.eye(4)[:, :, None]
    return block


@EVERY
def test_an_untrained_block_changes_nothing_and_learns(x, kind):
    block = DenoisingBlock(4, kind=kind)
    out = block(x)
    assert torch.equal(out, x)
    (gradient,) = torch.autograd.grad(out.square().sum(), block.norm.weight)
    assert gradient.any()


def test_the_mean_is_of_three_neighbours(x):
    added = identity("mean")(x) - x
    torch.testing.assert_close(added[..., 1:-1], (x[..., :-2] + x[..., 1:-1] + x[..., 2:]) / 3)


def test_non_local_means_by_hand(x):
    dot, gaussian = identity("dot"), identity("gaussian")
    for item, position in ((0, 0), (1, 4)):
        pivot = x[item, :, position]
        weights = torch.stack([pivot @ x[item, :, j] for j in range(7)]) / 7
        added = (dot(x) - x)[item, :, position]
        torch.testing.assert_close(added, x[item] @ weights)
        theta, phi = gaussian.theta.weight[..., 0], gaussian.phi.weight[..., 0]
        affinity = torch.stack([(theta @ pivot) @ (phi @ x[item, :, j]) for j in range(7)])
        added = (gaussian(x) - x)[item, :, position]
        torch.testing.assert_close(added, x[item] @ (affinity / 2**0.5).softmax(dim=0))


@EVERY
def test_padding_is_not_looked_at(x, kind):
    block = trained(kind)
    out = block(x, torch.tensor([7, 4]))
    torch.testing.assert_close(out[1:, :, :4], block(x[1:, :, :4]))
    loud = x.clone()
    loud[1, :, 4:] = 100.0
    torch.testing.assert_close(block(loud, torch.tensor([7, 4]))[1, :, :4], out[1, :, :4])


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="filter is 'median', expected one of"):
        DenoisingBlock(4, kind="median")
    with pytest.raises(InputError, match="defence is 'denoising', expected one of"):
        AudioNet(defence="denoising")


def test_audionet_has_one_behind_each_stage_and_starts_as_the_plain_one():
    plain, network = AudioNet().eval(), AudioNet(defence="feature-denoising").eval()
    assert list(network.defences) == ["0", "3", "5"]
    network.load_state_dict(network.state_dict() | plain.state_dict())
    x = torch.rand(2, 32, 60)
    torch.testing.assert_close(network(x), plain(x))
    torch.nn.init.ones_(network.defences["3"].norm.weight)
    assert not torch.allclose(network(x), plain(x))
