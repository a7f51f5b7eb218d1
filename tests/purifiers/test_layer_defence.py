"""What every defence inside a network promises, and where its model refuses one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError, LayerNotFoundError
from nip_audio.purifiers.activation_pruning import ActivationPruning
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.layer_defence import LayerDefence, LayerDefendedModel
from nip_audio.purifiers.nip_activation import ActivationNip
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings

LAYERS = ("frames.2", "frames.4", "embedding")
DETERMINISTIC = pytest.mark.parametrize("name", ["class-neurons", "nip-n"])
EVERY = pytest.mark.parametrize("name", ["sap", "class-neurons", "nip-n"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def features() -> Batch:
    return Batch(torch.rand(2, 40, 60, generator=seeded(5)), torch.tensor([60, 35]))


@pytest.fixture
def make(tiny_model) -> Callable[[str], LayerDefendedModel]:
    benign = [Batch(torch.rand(6, 40, 40, generator=seeded(3)))]

    def made(name: str) -> LayerDefendedModel:
        if name == "sap":
            defence: LayerDefence = ActivationPruning(layers=LAYERS)
        elif name == "class-neurons":
            defence = ClassNeurons.fit(tiny_model, benign, layers=LAYERS, share=0.6)
        else:
            settings = PoolSettings(front=2, tail=2, quorum=0.3)
            pool = NipPool.fit(
                tiny_model, benign, layer="frames.4", model_id="m", settings=settings
            )
            defence = ActivationNip(pool)
        defended = defend(tiny_model, defence, generator=seeded())
        assert isinstance(defended, LayerDefendedModel)
        return defended

    return made


@EVERY
def test_same_generator_same_answer_and_it_is_another_than_undefended(make, name, features):
    first, second = (make(name).embed_input(features) for _ in range(2))
    assert torch.equal(first, second)
    assert first.isfinite().all()
    assert not torch.allclose(first, make(name).model.embed_input(features))


@EVERY
def test_hooks_are_gone_and_the_model_is_what_it_was(make, name, features, hook_count, tiny_model):
    plain = tiny_model.embed_input(features)
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    defended = make(name)
    defended.embed_input(features)
    assert hook_count(defended) == 0
    assert torch.equal(tiny_model.embed_input(features), plain)
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[key]), key


@EVERY
def test_hooks_are_gone_after_an_error(make, name, features, hook_count, monkeypatch):
    defended = make(name)

    def fail(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
        raise RuntimeError("in the layer")

    monkeypatch.setattr(defended.defence, "prepare", lambda *args, **options: fail)
    with pytest.raises(RuntimeError, match="in the layer"):
        defended.embed_input(features)
    assert hook_count(defended) == 0


@DETERMINISTIC
def test_a_batch_is_its_items_whatever_lies_in_the_padding(make, name, features):
    defended = make(name)
    got = defended.embed_input(features)
    alone = torch.cat([defended.embed_input(features.item(i)) for i in range(2)])
    torch.testing.assert_close(got, alone, atol=1e-4, rtol=1e-4)
    loud = features.x.clone()
    loud[1, :, 35:] = 50.0
    torch.testing.assert_close(
        defended.embed_input(features.with_x(loud)), got, atol=1e-4, rtol=1e-4
    )


@EVERY
def test_padding_of_a_layer_stays_as_it_is(make, name, features):
    defended = make(name)
    layer = defended.network.get_submodule("frames.4")
    plain: list[Tensor] = []
    changed: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda m, a, out: plain.append(out)),
        defended.network.get_submodule("pool").register_forward_pre_hook(
            lambda m, args: changed.append(args[0])
        ),
    ]
    defended.embed_input(features)
    for handle in handles:
        handle.remove()
    change = changed[-1] - plain[-1]
    valid = int(defended.tap_lengths("frames.4", features.lengths)[1])
    assert change[1, :, :valid].any()
    assert not change[1, :, valid:].any()


@EVERY
def test_gradients_flow(make, name, features):
    x = features.x.clone().requires_grad_(True)
    scores = make(name).without_front_end().scores(features.with_x(x))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    assert gradient.isfinite().all()
    assert gradient[0].any()
    assert gradient[1, :, :35].any()


@EVERY
def test_float64_stays_float64(make, name, features):
    defended = make(name)
    defended.double()
    embeddings = defended.embed_input(features.with_x(features.x.double()))
    assert embeddings.dtype == torch.float64
    assert embeddings.isfinite().all()


@EVERY
def test_no_front_end_keeps_the_defence(make, name):
    wave = Batch(0.1 * torch.randn(1, 8000, generator=seeded(2)))
    expected = make(name).embed(wave)
    defended = make(name)
    bare = defended.without_front_end()
    assert bare.bounds == defended.input_bounds
    torch.testing.assert_close(bare.embed(defended.model.to_input(wave)), expected)


@pytest.mark.parametrize("name", ["sap", "nip-n"])
def test_another_head_keeps_the_defence(make, name, features):
    expected = make(name).embed_input(features)
    other = make(name).with_head(CosineHead(torch.eye(6)), labels=tuple("abcdef"))
    assert other.labels == tuple("abcdef")
    torch.testing.assert_close(other.embed_input(features), expected)


class Branches(nn.Module):
    """Holds a layer that returns two tensors, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.two = nn.LSTM(4, 4, batch_first=True)
        self.idle = nn.ModuleList([nn.Identity()])

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.two(self.idle[0](x).mT)[0].mean(dim=1)


@pytest.mark.parametrize(
    ("layer", "match"),
    [("two", "returns tuple, expected one tensor"), ("idle", "layer idle did not run")],
)
def test_layers_that_cannot_be_changed_are_refused(layer, match, hook_count):
    model = InstrumentedModel(Branches(), bounds=Bounds(0.0, 1.0)).eval()
    defended = defend(model, ActivationPruning(layers=[layer]), generator=seeded())
    with pytest.raises(InputError, match=match):
        defended.embed_input(Batch(torch.rand(1, 4, 5)))
    assert hook_count(defended) == 0


def test_a_layer_that_is_not_there_is_refused_at_once(tiny_model):
    with pytest.raises(LayerNotFoundError, match="did you mean frames"):
        defend(tiny_model, ActivationPruning(layers=["frames.44"]), generator=seeded())


def test_what_is_no_defence_is_refused(tiny_model):
    with pytest.raises(InputError, match="expected a Purifier, a GatedPurifier or a LayerDefence"):
        defend(tiny_model, "sap", generator=seeded())
