from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError, LayerNotFoundError
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.layer_defence import LayerDefendedModel
from nip_audio.purifiers.nip_activation import ActivationNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings


class Vector(nn.Module):
    """Four neurons: those of the input's only frame."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.pool(x[..., 0])


def defended_by(model: InstrumentedModel, pool: NipPool) -> LayerDefendedModel:
    return LayerDefendedModel(model, ActivationNip(pool), generator=torch.Generator())


def by_hand(sign: str = "paper", *, front: int = 1, tail: int = 1) -> LayerDefendedModel:
    head = nn.Linear(4, 2, bias=False)
    head.weight.data = torch.tensor([[4.0, 3.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    model = InstrumentedModel(Vector(), head=head, bounds=Bounds(0.0, 1.0)).eval()
    benign = Batch(torch.full((1, 4, 1), 0.5))  # order 0, 1, 2, 3
    settings = PoolSettings(front=front, tail=tail, sign=sign)
    pool = NipPool.fit(model, [benign], layer="pool", model_id="m", settings=settings)
    return defended_by(model, pool)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({}, [-0.5, 0, 0, 0.5]),
        ({"sign": "descent"}, [0.5, 0, 0, -0.5]),
        ({"tail": 0}, [-1, 0, 0, 0]),
        ({"front": 0, "tail": 2}, [0, 0, 1, 1]),
    ],
)
def test_activations_by_hand(options, pattern):
    x = torch.tensor([[[0.2], [0.4], [0.6], [0.8]]])
    got = by_hand(**options).embed_input(Batch(x))
    torch.testing.assert_close(got, x[..., 0] + 0.5 * torch.tensor([pattern]))  # mean .5


def test_scores_are_those_of_the_changed_activations():
    x = torch.tensor([[[0.2], [0.4], [0.6], [0.8]]])
    defended = by_hand()
    expected = defended.head(torch.tensor([[-0.05, 0.4, 0.6, 1.05]]))
    torch.testing.assert_close(defended.scores(Batch(x)), expected)


@pytest.fixture
def defended(tiny_model) -> LayerDefendedModel:
    x = torch.rand(4, 40, 40, generator=torch.Generator().manual_seed(3))
    settings = PoolSettings(front=2, tail=2, quorum=0.3)
    pool = NipPool.fit(tiny_model, [Batch(x)], layer="frames.4", model_id="m", settings=settings)
    return defended_by(tiny_model, pool)


@pytest.fixture
def features() -> Batch:
    x = torch.rand(2, 40, 60, generator=torch.Generator().manual_seed(5))
    return Batch(x, torch.tensor([60, 35]))


def test_feature_maps_change_at_valid_positions_only(defended, features):
    seen: list[Tensor] = []
    plain: list[Tensor] = []
    layer = defended.network.get_submodule("frames.4")
    before = layer.register_forward_hook(lambda m, a, out: plain.append(out))
    after = defended.network.get_submodule("pool").register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    defended.embed_input(features)
    before.remove()
    after.remove()
    change = seen[-1] - plain[-1]
    lengths = defended.tap_lengths("frames.4", features.lengths)
    chosen = defended.defence.pool.selection(defended.defence.pool.choose(features))
    for item in range(2):
        valid = int(lengths[item])
        mean = plain[-1][item, :, :valid].mean()
        expected = torch.zeros(change.shape[1])
        expected[chosen.front[item]] = mean / 2
        expected[chosen.tail[item]] = -mean / 2
        torch.testing.assert_close(
            change[item, :, :valid], expected[:, None].expand(-1, valid), atol=1e-5, rtol=1e-4
        )
        assert not change[item, :, valid:].any()


def test_a_batch_is_its_items(defended, features):
    got = defended.embed_input(features)
    alone = torch.cat([defended.embed_input(features.item(i)) for i in range(2)])
    torch.testing.assert_close(got, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, defended.model.embed_input(features))


def test_hooks_are_gone_and_the_model_is_what_it_was(
    defended, features, hook_count, monkeypatch, tiny_model
):
    plain = tiny_model.embed_input(features)
    defended.embed_input(features)
    assert hook_count(defended) == 0
    assert torch.equal(tiny_model.embed_input(features), plain)
    monkeypatch.setattr(
        defended.defence.pool, "choose", lambda batch: torch.zeros(2, dtype=torch.long)
    )
    monkeypatch.setattr(defended.defence.pool, "step", None)
    with pytest.raises(TypeError):
        defended.embed_input(features)
    assert hook_count(defended) == 0


def test_gradients_flow(defended, features):
    x = features.x.clone().requires_grad_(True)
    scores = defended.without_front_end().scores(features.with_x(x))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    assert gradient.isfinite().all()
    assert gradient[0].any()


def test_other_head_and_no_front_end_keep_the_defence(defended, features):
    bare = defended.without_front_end()
    torch.testing.assert_close(bare.embed(features), defended.embed_input(features))
    other = defended.with_head(CosineHead(torch.eye(6)), labels=tuple("abcdef"))
    assert other.labels == tuple("abcdef")
    torch.testing.assert_close(other.embed_input(features), defended.embed_input(features))
    wave = Batch(0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)))
    expected = defended.embed_input(defended.model.to_input(wave))
    torch.testing.assert_close(defended.embed(wave), expected)


def test_a_pool_of_another_network_is_refused(defended, tiny_model):
    with pytest.raises(InputError, match="belongs to another network"):
        defended_by(by_hand().model, defended.defence.pool)
    defended.defence.pool.layer = "nowhere"
    with pytest.raises(LayerNotFoundError, match="'nowhere' does not exist"):
        defended_by(tiny_model, defended.defence.pool)


def test_is_read_from_the_pools_file(defended, features, tiny_model, tmp_path):
    defended.defence.pool.save(tmp_path / "my.pool")
    read = ActivationNip.load(tmp_path / "my.pool", model=tiny_model, sign="paper")
    assert read.name.startswith("nip-n 2/2 frames.4 paper")
    assert read.settings()["name"] == "nip-n"
    assert read.settings() != defended.defence.settings()
    other = defend(tiny_model, read, generator=torch.Generator())
    assert not torch.allclose(other.embed_input(features), defended.embed_input(features))
