from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds, masked_mean
from nip_audio.core.influence import neuron_influence
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import (
    HashMismatchError,
    InputError,
    LayerNotFoundError,
    OutputError,
    StateError,
    TemplateEmptyWarning,
)
from nip_audio.purifiers._nip_matching import nearest, similarity, template_of
from nip_audio.purifiers._nip_neurons import Neurons
from nip_audio.purifiers.nip_pool import NipPool, PoolSettings

UNIT = Bounds(0.0, 1.0)
ONE_EACH = PoolSettings(front=1, tail=1, sign="paper")
HALF = PoolSettings(front=1, tail=1, quorum=0.5, sign="paper")

W = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]]
V = [[1.0, 3.0, -1.0, 0.5], [-0.5, 0.2, 0.1, 1.0]]


class TwoLayer(nn.Module):
    """φ = W · mean over time of two rows; four neurons, nothing behind them but the head."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 4, bias=False)
        self.hidden.weight.data = torch.tensor(W)
        self.pool = nn.Identity()
        self.norm = nn.BatchNorm1d(4)
        self.spare = nn.Linear(2, 4)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        self.spare(torch.zeros_like(x[:, :, 0]))
        return self.pool(self.hidden(masked_mean(x, lengths)))


class Behind(TwoLayer):
    """The same function, but the head is not fed by the tapped layer itself."""

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().forward(x, lengths) * 1.0


def model_of(network: nn.Module, *, bounds: Bounds = UNIT) -> InstrumentedModel:
    head = nn.Linear(4, 2, bias=False)
    head.weight.data = torch.tensor(V)
    return InstrumentedModel(network, head=head, bounds=bounds).eval()


@pytest.fixture
def by_hand() -> InstrumentedModel:
    return model_of(TwoLayer())


def rows(*means: tuple[float, float], frames: int = 2) -> Tensor:
    """Items whose two rows have these means, the first frame a little above the last."""
    slope = torch.linspace(0.05, -0.05, frames)
    wave = slope if frames > 1 else torch.zeros(1)
    steady = torch.tensor(means)[:, :, None].expand(-1, -1, frames)
    return steady + wave * (steady > 0)


A, C = (0.4, 0.2), (0.5, 0.0)
"""A: φ (.4 .2 .6 .6), class 0 (.7 to .5), σ (.4 .6 −.6 .3): front 1, remaining 0 3, tail 2.
C: φ (.5 0 .5 1), class 1 (.5 to .8), σ (−.25 0 .05 1): front 3, remaining 2 1, tail 0."""


def fitted(model: InstrumentedModel, settings: PoolSettings = HALF, **more) -> NipPool:
    batches = [Batch(rows(A)), Batch(rows(C))]
    return NipPool.fit(model, batches, layer="pool", model_id="m", settings=settings, **more)


def purified(pool: NipPool, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    return pool.purify(Batch(x, lengths), generator=torch.Generator()).x


def test_candidates_by_hand(by_hand):
    pool = fitted(by_hand)
    assert pool.order.tolist() == [[1, 0, 3, 2], [3, 2, 1, 0]]
    # A: w2 − w1 = (1, 0); C: w0 − w3 = (−1, 1), both over their range; the same at every frame
    expected = torch.tensor([[1.0, 0.0], [-0.5, 0.5]])[:, :, None].expand(-1, -1, 2)
    torch.testing.assert_close(pool.rho, expected)


def test_gradient_by_hand(by_hand):
    neurons = Neurons(by_hand, "pool", "logit")
    batch = Batch(rows(A, C))
    front, tail = torch.tensor([[1], [3]]), torch.tensor([[2], [0]])
    got = neurons.gradient(batch, front=front, tail=tail)
    # a mean over two frames halves it
    torch.testing.assert_close(got[..., 0], torch.tensor([[0.5, 0.0], [-0.5, 0.5]]))


def test_similarities_by_hand(by_hand):
    # every neuron is remaining in half of the items: two fit, the first two, so T' = (1, 2)
    pool = fitted(by_hand)
    assert pool.template.tolist() == [0, 1]
    expected = [9 / (17 * 5) ** 0.5, 7 / (13 * 5) ** 0.5]  # of (1, 4) and (3, 2)
    assert pool.similarities.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("sign", "factor"), [("paper", 1.0), ("descent", -1.0)])
def test_defence_by_hand(by_hand, sign, factor):
    pool = fitted(by_hand, PoolSettings(front=1, tail=1, quorum=0.5, sign=sign))
    x = rows(C, A)
    assert pool.choose(Batch(x)).tolist() == [1, 0]
    got = purified(pool, x) - x
    assert torch.allclose(got[0, 0], torch.tensor(-0.125 * factor))  # mean .25
    assert torch.allclose(got[1, 0], torch.tensor(0.3 * factor))  # mean .3
    assert torch.allclose(got[1, 1], torch.tensor(0.0))
    second = torch.tensor(0.125) if factor > 0 else torch.tensor(0.0)  # clipped at 0
    assert torch.allclose(got[0, 1], second)


def test_result_is_clipped(by_hand):
    assert purified(fitted(by_hand), rows((0.9, 0.45)))[0, 0].tolist() == [1.0, 1.0]


def test_plain_intersection(by_hand):
    batches = [Batch(rows(A, (0.8, 0.5)))]
    pool = NipPool.fit(by_hand, batches, layer="pool", model_id="m", settings=ONE_EACH)
    assert pool.template.tolist() == [0, 3]
    assert pool.similarities.tolist() == pytest.approx([1.0, 1.0])


def test_empty_template_is_said_and_the_first_candidate_taken(by_hand):
    with pytest.warns(TemplateEmptyWarning, match="template is empty.*lower the quorum, to 0.5"):
        pool = fitted(by_hand, ONE_EACH)
    assert pool.similarities.tolist() == [0.0, 0.0]
    assert pool.choose(Batch(rows(C, A, C))).tolist() == [0, 0, 0]
    assert pool.settings()["template"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pool.with_settings(quorum=0.5).choose(Batch(rows(C, A))).tolist() == [1, 0]


def test_template_with_a_quorum():
    remaining = torch.tensor([[4, 1, 2], [1, 2, 3], [1, 3, 0]])
    found = {q: template_of(remaining, neurons=5, quorum=q).tolist() for q in (1, 2 / 3, 0.6, 0.1)}
    assert found == {1: [1], 2 / 3: [1, 2, 3], 0.6: [1, 2, 3], 0.1: [1, 2, 3]}


def test_similarity_counts_indices_from_one():
    remaining = torch.tensor([[0, 1], [1, 0]])
    assert similarity(remaining, torch.tensor([0])).tolist() == pytest.approx(
        [1 / 5**0.5, 2 / 5**0.5]
    )
    assert similarity(remaining, torch.tensor([], dtype=torch.long)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("known", "asked", "expected"),
    [
        ([0.5], 9.0, 0),
        ([0.5, 0.25, 0.75], 0.3, 1),
        ([0.5, 0.25, 0.75], 0.7, 2),
        ([0.75, 0.25, 0.5], -1.0, 1),
        ([0.75, 0.25, 0.5], 2.0, 0),
        ([0.75, 0.25], 0.5, 0),  # equally near
        ([0.25, 0.75], 0.5, 0),
        ([0.0, 0.5, 0.5, 0.5], 0.5, 1),  # equal ones
        ([0.0, 0.5, 0.5], 0.9, 1),
        ([0.9, 0.5, 0.5], 0.6, 1),
        ([0.9, 0.25, 0.75, 0.25], 0.5, 1),
    ],
)
def test_nearest(known, asked, expected):
    got = nearest(torch.tensor(known), torch.tensor([asked, asked]))
    assert got.tolist() == [expected, expected]


def test_nearest_is_what_a_full_comparison_finds():
    rng = torch.Generator().manual_seed(0)
    known = torch.randint(8, (40,), generator=rng) / 8
    asked = torch.rand(200, generator=rng)
    full = (known[None] - asked[:, None]).abs()
    assert torch.equal(nearest(known, asked), full.argmin(dim=1))


def pool_of(model: InstrumentedModel, rho: Tensor) -> NipPool:
    order = torch.tensor([[1, 0, 3, 2]]).expand(len(rho), -1)
    return NipPool(model, layer="pool", model_id="m", settings=ONE_EACH, rho=rho, order=order)


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_candidate_is_repeated_or_cut_to_the_input(by_hand, frames):
    pool = pool_of(by_hand, torch.tensor([[[0.1, 0.2, 0.3], [0.0, -0.1, -0.2]]]))
    x = torch.full((1, 2, frames), 0.5)
    expected = 0.5 + 0.5 * pool.rho.repeat(1, 1, 3)[..., :frames]
    torch.testing.assert_close(purified(pool, x), expected)


def test_padding_neither_counts_nor_changes(by_hand):
    pool = fitted(by_hand)
    x = torch.full((2, 2, 5), 0.9)
    x[0, :, :2] = rows(A)[0]
    x[1] = rows(A, frames=5)[0]
    given = x.clone()
    got = purified(pool, x, torch.tensor([2, 5]))
    torch.testing.assert_close(got[:1, :, :2], purified(pool, rows(A)))
    assert not got[0, :, 2:].any()
    assert torch.equal(x, given)


def test_silence_and_constant_candidates_change_nothing(by_hand):
    silence = torch.zeros(1, 2, 4)
    assert torch.equal(purified(fitted(by_hand), silence), silence)
    settings = PoolSettings(front=0, tail=1, quorum=0.5)  # tail of A: w2 = (1, 1)
    pool = NipPool.fit(by_hand, [Batch(rows(A))], layer="pool", model_id="m", settings=settings)
    assert not pool.rho.any()
    assert torch.equal(purified(pool, rows(A)), rows(A))


@pytest.mark.parametrize("of", ["logit", "confidence"])
def test_closed_form_and_automatic_differentiation_agree(of):
    direct, behind = model_of(TwoLayer()), model_of(Behind())
    batch = Batch(rows(A, C, (0.7, 0.6)))
    found = [Neurons(m, "pool", of).influence(batch) for m in (direct, behind)]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(found[0], neuron_influence(direct, batch, "pool", of=of))


def test_no_backward_pass_where_the_closed_form_holds(by_hand, monkeypatch):
    pool = fitted(by_hand)
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert pool.choose(Batch(rows(A))).tolist() == [0]
    other = model_of(Behind())
    with pytest.raises(TypeError):
        Neurons(other, "pool", "logit").influence(Batch(rows(A)))


def test_double_precision_stays_whatever_the_model_takes(by_hand):
    x = rows(A, C).double()
    single = fitted(by_hand)
    got = purified(single, x)
    assert got.dtype == torch.float64
    double = NipPool.fit(
        model_of(TwoLayer()).double(),
        [Batch(rows(A).double()), Batch(rows(C).double())],
        layer="pool",
        model_id="m",
        settings=HALF,
    )
    assert double.rho.dtype == torch.float64
    torch.testing.assert_close(purified(double, x), got, atol=1e-6, rtol=0)


# --- a real network: convolutions, cosine head ---


@pytest.fixture
def spectrograms() -> Tensor:
    return torch.rand(6, 40, 40, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def pool(tiny_model, spectrograms) -> NipPool:
    return NipPool.fit(
        tiny_model,
        [Batch(spectrograms[:4]), Batch(spectrograms[4:])],
        layer="frames.4",
        model_id="m",
        settings=PoolSettings(front=2, tail=3, quorum=0.4),
        seen=["b", "a"],
    )


@pytest.fixture
def batch() -> Batch:
    x = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(4))
    return Batch(x, torch.tensor([70, 33, 51]))


def test_a_batch_is_its_items(pool, batch):
    got = pool.purify(batch, generator=torch.Generator())
    for index in range(3):
        alone = pool.purify(batch.item(index), generator=torch.Generator())
        torch.testing.assert_close(got.item(index).x, alone.x)
    assert got.x.min() >= 0
    assert got.x.max() <= 1
    assert not torch.equal(got.x, batch.masked())


def test_fitting_in_batches_of_any_size_is_the_same(pool, tiny_model, spectrograms):
    other = NipPool.fit(
        tiny_model,
        [Batch(x[None]) for x in spectrograms],
        layer="frames.4",
        model_id="m",
        settings=pool.pool_settings,
    )
    assert torch.equal(other.order, pool.order)
    torch.testing.assert_close(other.rho, pool.rho, atol=1e-5, rtol=1e-4)


def test_candidates_are_the_slope_of_the_loss(pool, tiny_model, spectrograms):
    """Eq. 5 by finite differences along each candidate, in float64."""
    model = tiny_model.double()
    x = spectrograms[:1].double()
    neurons = Neurons(model, "frames.4", "logit")
    chosen = pool.selection(torch.tensor([0]))
    rho = neurons.gradient(Batch(x), front=chosen.front, tail=chosen.tail)

    def loss(at: Tensor) -> float:
        with torch.no_grad(), model.tap("frames.4") as tap:
            model.embed_input(Batch(at))
            phi = tap["frames.4"].mean(dim=2)[0]
        return float(phi[chosen.tail[0]].sum() - phi[chosen.front[0]].sum())

    step = 1e-5 * rho / rho.norm()
    slope = (loss(x + step) - loss(x - step)) / 2e-5
    assert slope == pytest.approx(float(rho.norm()), rel=1e-4)
    span = rho.amax() - rho.amin()
    torch.testing.assert_close(pool.rho[:1].double(), rho / span, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("layer", ["pool", "embedding"])
def test_embedding_models_have_neurons_too(embedding_model, spectrograms, layer):
    settings = PoolSettings(front=2, tail=2, quorum=0.1)
    pool = NipPool.fit(
        embedding_model, [Batch(spectrograms)], layer=layer, model_id="m", settings=settings
    )
    assert purified(pool, spectrograms).shape == spectrograms.shape


def test_nothing_in_the_model_changes(tiny_model, spectrograms, hook_count):
    tiny_model.train()
    for parameter in tiny_model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    frozen = next(tiny_model.parameters()).requires_grad_(False)
    before = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    settings = PoolSettings(front=2, tail=2, quorum=0.1)
    pool = NipPool.fit(
        tiny_model, [Batch(spectrograms)], layer="frames.4", model_id="m", settings=settings
    )
    pool.purify(Batch(spectrograms), generator=torch.Generator())
    assert all(module.training for module in tiny_model.modules())
    assert all(torch.equal(v, before[k]) for k, v in tiny_model.state_dict().items())
    assert all(p.grad.eq(7.0).all() for p in tiny_model.parameters())
    assert not frozen.requires_grad
    assert hook_count(tiny_model) == 0
    with pytest.raises(LayerNotFoundError, match=r"did you mean frames"):
        NipPool.fit(tiny_model, [Batch(spectrograms)], layer="frames.44", model_id="m")
    assert hook_count(tiny_model) == 0


def test_no_gradient_flows_and_nothing_is_drawn(pool, batch):
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    x = batch.x.clone().requires_grad_(True)
    got = pool.purify(batch.with_x(x), generator=generator)
    assert not got.x.requires_grad
    assert torch.equal(generator.get_state(), state)
    assert (pool.level, pool.differentiable, pool.random) == ("input", False, False)


def test_it_is_given_no_label_and_no_original():
    assert list(inspect.signature(NipPool.purify).parameters) == ["self", "batch", "generator"]
    assert list(inspect.signature(NipPool.choose).parameters) == ["self", "batch"]
    assert list(inspect.signature(NipPool.fit).parameters) == [
        "model",
        "batches",
        "layer",
        "model_id",
        "settings",
        "seen",
        "progress",
    ]


# --- files ---


def test_it_is_what_it_was_after_a_file(pool, tiny_model, batch, tmp_path):
    pool.save(tmp_path / "p")
    loaded = NipPool.load(tmp_path / "p", model=tiny_model, model_id="m")
    assert loaded.rho.dtype == torch.float16
    assert loaded.seen == {"a", "b"}
    assert loaded.settings() == pool.settings()
    assert loaded.name == pool.name
    before, after = (p.purify(batch, generator=torch.Generator()).x for p in (pool, loaded))
    assert torch.allclose(before, after, atol=1e-3)
    with pytest.raises(OutputError, match="exists already"):
        pool.save(tmp_path / "p")
    loaded.save(tmp_path / "p", force=True)  # onto the file that it is mapped from
    again = NipPool.load(str(tmp_path / "p"), model=tiny_model)
    assert torch.equal(again.rho, loaded.rho)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_candidates_stay_in_the_file(pool, tiny_model, tmp_path):
    path = tmp_path / "mapped.safetensors"
    pool.save(path)
    loaded = NipPool.load(path, model=tiny_model, model_id="m")
    with open("/proc/self/maps", encoding="utf-8") as maps:
        spans = [line.split()[0].split("-") for line in maps if str(path) in line]
    at = loaded.rho.data_ptr()
    assert any(int(low, 16) <= at < int(high, 16) for low, high in spans)


def test_a_file_of_another_model_is_refused(pool, by_hand, tiny_model, tmp_path):
    pool.save(tmp_path / "p")
    with pytest.raises(StateError, match="was made for model m"):
        NipPool.load(tmp_path / "p", model=tiny_model, model_id="other")
    other = model_of(TwoLayer(), bounds=Bounds(0.0, 2.0))
    with pytest.raises(StateError, match=r"fitted on input in \[0.0, 1.0\], this model's is in"):
        NipPool.load(tmp_path / "p", model=other, model_id="m")


def test_a_changed_file_is_refused(pool, tiny_model, tmp_path):
    path = tmp_path / "p"
    pool.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(HashMismatchError, match="changed"):
        NipPool.load(path, model=tiny_model, model_id="m")


def test_a_file_can_be_used_otherwise(pool, tiny_model, tmp_path):
    pool.save(tmp_path / "p")
    loaded = NipPool.load(
        tmp_path / "p", model=tiny_model, model_id="m", sign="descent", quorum=0.2, eta=0.5, seed=3
    )
    assert loaded.pool_settings == PoolSettings(front=2, tail=3, sign="descent", quorum=0.2)
    assert (len(loaded.rho), loaded.eta) == (3, 0.5)
    assert loaded.name == "nip-pool 2/3 frames.4 descent q0.2 η0.5"
    drawn = pool.with_share(0.5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn.order, loaded.order)


# --- shares, names, what makes no sense ---


def test_a_share_is_the_pool_of_fewer_items(by_hand):
    pool = fitted(by_hand)
    first = pool.with_share(0.5, generator=torch.Generator().manual_seed(0))
    assert len(first.rho) == 1
    index = pool.order.tolist().index(first.order[0].tolist())
    assert torch.equal(first.rho[0], pool.rho[index])
    assert first.template.tolist() == sorted(pool.order[index, 1:3].tolist())
    assert len(pool.with_share(0.01, generator=torch.Generator()).rho) == 1
    assert torch.equal(pool.with_share(1.0, generator=torch.Generator()).rho, pool.rho)
    with pytest.raises(InputError, match="eta is 0"):
        pool.with_share(0, generator=torch.Generator())


def test_names_and_settings_tell_pools_apart(by_hand):
    pools = [
        fitted(by_hand, PoolSettings(**{"front": 1, "tail": 1, "quorum": 0.5, **other}))
        for other in (
            {},
            {"sign": "paper"},
            {"influence": "confidence"},
            {"quorum": 0.4},
            {"front": 0},
        )
    ]
    assert pools[0].name == "nip-pool 1/1 pool descent q0.5"
    assert len({p.name for p in pools}) == len(pools)
    settings = [p.settings() for p in pools]
    assert json.loads(json.dumps(settings)) == settings
    assert len({json.dumps(s) for s in settings}) == len(pools)
    assert settings[0]["name"] == "nip-pool"


def test_progress_counts_items(by_hand):
    seen: list[int] = []
    fitted(by_hand, progress=seen.append)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"front": -1}, "front is -1"),
        ({"tail": 2.5}, "tail is 2.5"),
        ({"front": 0, "tail": 0}, "front and tail are 0"),
        ({"quorum": 0}, "quorum is 0"),
        ({"quorum": 1.1}, "quorum is 1.1"),
        ({"sign": "up"}, "sign is 'up', expected one of"),
        ({"influence": "score"}, "influence is 'score', expected one of"),
    ],
)
def test_senseless_settings_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        PoolSettings(**settings)


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ([], "got no batches"),
        ([Batch(rows(A)), Batch(rows(A, frames=3))], r"items are \(2, 3\), expected unpadded"),
        ([Batch(rows(A), torch.tensor([1]))], "items are padded"),
        ([Batch(rows((float("nan"), 0.2)))], "not finite"),
    ],
)
def test_senseless_benign_items_are_refused(by_hand, batches, text):
    with pytest.raises(InputError, match=text):
        NipPool.fit(by_hand, batches, layer="pool", model_id="m", settings=HALF)


def test_layers_that_do_not_serve_are_refused(by_hand):
    with pytest.raises(InputError, match="of 4 neurons"):
        NipPool.fit(by_hand, [Batch(rows(A))], layer="pool", model_id="m")
    with pytest.raises(InputError, match="does not depend on layer 'spare'"):
        NipPool.fit(by_hand, [Batch(rows(A))], layer="spare", model_id="m", settings=HALF)
    chosen = torch.tensor([[0]])
    with pytest.raises(InputError, match="do not depend on the input"):
        Neurons(by_hand, "spare", "logit").gradient(Batch(rows(A)), front=chosen, tail=chosen)


def test_input_that_does_not_fit_is_refused(by_hand, tiny_model):
    pool = fitted(by_hand)
    with pytest.raises(InputError, match=r"shape \(1, 3, 2\), expected \(items, 2, frames\)"):
        purified(pool, torch.rand(1, 3, 2))
    wider = pool_of(by_hand, pool.rho)
    wider.order = torch.arange(5)[None]
    with pytest.raises(InputError, match="has 4 neurons, the pool was fitted on 5"):
        wider.choose(Batch(rows(A)))
    with pytest.raises(InputError, match="expected as many candidates"):
        NipPool(tiny_model, layer="x", model_id="m", rho=pool.rho, order=pool.order[:1])


def test_input_with_a_mean_near_zero_is_refused():
    model = model_of(TwoLayer(), bounds=Bounds(-1.0, 1.0))
    with pytest.raises(InputError, match="expected no negative values"):
        fitted(model)
