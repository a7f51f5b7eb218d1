from __future__ import annotations

import logging.config
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from nip_audio.attacks._art import evasion
from nip_audio.attacks.autoattack import AutoAttack
from nip_audio.attacks.base import System
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.attacks.hopskipjump import HopSkipJump
from nip_audio.attacks.jsma import Jsma
from nip_audio.attacks.objectives import Guarded, Identification, Verification
from nip_audio.attacks.one_pixel import OnePixel
from nip_audio.attacks.registry import make_attack
from nip_audio.attacks.square import Square
from nip_audio.attacks.universal import UniversalDeepFool
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError, MissingDependencyError

EPS = 0.05
ATTACKS = {
    "jsma": Jsma(gamma=0.02),
    "uap-deepfool": UniversalDeepFool(EPS, steps=2),
    "autoattack": AutoAttack(EPS, steps=3, square_steps=5),
    "one-pixel": OnePixel(steps=1, queries=450),
    "square": Square(EPS, queries=15),
    "hopskipjump": HopSkipJump(steps=1, queries=130),
}
EVERYWHERE = ("uap-deepfool", "autoattack", "hopskipjump")
every_attack = pytest.mark.parametrize("name", ATTACKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Three logits, each a weighted sum of the input, of whatever length."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, *shape, generator=seeded(4)))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x, lengths=None):
        return x.flatten(1) @ self.weight[..., : x.shape[-1]].flatten(1).T + self.bias


class Deaf(nn.Module):
    def forward(self, x, lengths=None):
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3)


def system_of(network: nn.Module, *, low: float) -> InstrumentedModel:
    return InstrumentedModel(
        network, head=nn.Identity(), labels=("a", "b", "c"), bounds=Bounds(low, 1.0)
    ).eval()


def linear_case(level: str) -> tuple[InstrumentedModel, Batch]:
    """A linear system and three items well inside the bounds, padded to different lengths."""
    shape = (60,) if level == "raw" else (6, 10)
    x = 0.3 + 0.4 * torch.rand(3, *shape, generator=seeded(5))
    low = -1.0 if level == "raw" else 0.0
    lengths = torch.tensor([shape[-1], shape[-1] - 1, shape[-1] - 2])
    x = Batch(x, lengths).masked()
    return system_of(Linear(*shape), low=low), Batch(x, lengths)


def needed(model: InstrumentedModel, batch: Batch, order: float) -> torch.Tensor:
    """Smallest change, in the dual norm, that crosses a linear system's next boundary: (B,)."""
    out = []
    for index in range(len(batch)):
        item = batch.item(index)
        logits = model.scores(item)[0]
        own = int(logits.argmax())
        weight = model.network.weight[..., : item.x.shape[-1]].flatten(1)
        slope = (weight - weight[own]).norm(dim=1, p=order)
        out.append(
            torch.stack([(logits[own] - logits[k]) / slope[k] for k in range(3) if k != own])
        )
    return torch.stack(out).amin(dim=1).detach()


def attack_for(name: str, eps: float, **settings):
    given = eps if name in ("uap-deepfool", "autoattack", "square") else None
    return make_attack(name, eps=given, level="input", settings=settings)


@pytest.fixture
def spectrograms() -> Batch:
    x = torch.rand(2, 40, 30, generator=seeded(7))
    x[0, :, :2] = 1.0  # at a bound, where ε must give way to it
    x[1, :, 26:] = 0.5
    return Batch(x, torch.tensor([30, 26]))


@pytest.fixture
def waveforms() -> Batch:
    x = 0.2 * (torch.rand(2, 6000, generator=seeded(7)) - 0.5)
    x[0, :50] = 1.0
    x[1, 5500:] = 0.5
    return Batch(x, torch.tensor([6000, 5500]))


@pytest.fixture
def references() -> torch.Tensor:
    return torch.randn(2, 6, generator=seeded(8))


@pytest.fixture
def unwilling(tiny_model, references) -> Verification:
    """A verification of spectrograms that accepts nobody yet."""
    model = tiny_model.without_front_end()
    return Verification(model, references, threshold=0.999, goal="accept")


def check_promises(name, objective, given):
    junk = given.x.clone()
    result = ATTACKS[name](objective, given, generator=seeded())
    x, bounds = result.batch.x, objective.model.bounds
    delta = x - given.masked()
    assert torch.equal(given.x, junk)  # what was given is as it was
    assert x.isfinite().all()
    assert x.min() >= bounds.low
    assert x.max() <= bounds.high
    assert x[1, ..., int(given.lengths[1]) :].eq(0).all()
    assert torch.equal(result.batch.lengths, given.lengths)
    assert torch.equal(result.succeeded, objective.succeeded(result.batch))
    assert not x.requires_grad
    if ATTACKS[name].limit is not None:
        assert delta.abs().max() <= EPS * (1 + 1e-4)
    if name == "one-pixel":
        assert (result.l0 <= 1).all()
    if name != "uap-deepfool":  # whose one perturbation is in every item
        assert delta[~result.succeeded].eq(0).all()
    assert result.queries >= 1
    assert (result.gradients > 0) == (name in ("jsma", "uap-deepfool", "autoattack"))


@pytest.mark.parametrize("goal", ["accept", "reject", "untargeted", "targeted"])
@every_attack
def test_promises_on_spectrograms(tiny_model, references, spectrograms, name, goal):
    model = tiny_model.without_front_end()
    if goal in ("accept", "reject"):
        cosines = nn.functional.cosine_similarity(model.embed(spectrograms), references).detach()
        beyond = 0.01 if goal == "accept" else -0.01
        edge = cosines.max() if goal == "accept" else cosines.min()
        objective = Verification(model, references, threshold=float(edge) + beyond, goal=goal)
    else:
        own = model.predict(spectrograms)
        targeted = goal == "targeted"
        objective = Identification(model, (own + 1) % 3 if targeted else own, targeted=targeted)
    assert not objective.succeeded(spectrograms).any()
    check_promises(name, objective, spectrograms)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_promises_on_waveforms(tiny_model, waveforms, name):
    check_promises(name, Identification(tiny_model, tiny_model.predict(waveforms)), waveforms)


@every_attack
def test_same_generator_same_result_and_global_ones_untouched(unwilling, spectrograms, name):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = ATTACKS[name](unwilling, spectrograms, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002
    torch.manual_seed(9)
    second = ATTACKS[name](unwilling, spectrograms, generator=seeded(1))
    assert torch.equal(first.batch.x, second.batch.x)
    assert first.queries == second.queries
    torch.set_rng_state(states[0])
    random.setstate(states[1])


@pytest.mark.parametrize(
    ("name", "level"), [(n, level) for n in ("square", "hopskipjump") for level in ("raw", "input")]
)
def test_randomness_comes_from_the_generator(name, level):
    model, batch = linear_case(level)
    objective = Identification(model, model.predict(batch))
    attack = attack_for(name, 3 * float(needed(model, batch, 1).max()))
    first, again, other = (attack(objective, batch, generator=seeded(s)).batch.x for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("breaks", [False, True], ids=["runs", "raises"])
@every_attack
def test_system_is_left_as_found(tiny_model, references, spectrograms, hook_count, name, breaks):
    model = tiny_model.without_front_end()
    objective = Verification(model, references, threshold=0.999, goal="accept").train()
    model.network.pool_norm.eval()
    model.network.frames[0].requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    wants = [p.requires_grad for p in objective.parameters()]
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    rngs = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    if breaks:
        embed, calls = model.embed_input, iter([True, True, True])

        def embed_thrice(batch):
            if next(calls, False):
                return embed(batch)
            raise RuntimeError("broken")

        model.embed_input = embed_thrice
        with pytest.raises(RuntimeError, match="broken"):
            ATTACKS[name](objective, spectrograms, generator=seeded())
    else:
        ATTACKS[name](objective, spectrograms, generator=seeded())
    assert [p.requires_grad for p in objective.parameters()] == wants
    assert [m.training for m in objective.modules()] == modes
    assert all(p.grad.eq(7.0).all() for p in model.parameters())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert torch.equal(torch.get_rng_state(), rngs[0])
    assert random.getstate() == rngs[1]
    assert (np.random.get_state()[1] == rngs[2]).all()  # noqa: NPY002
    assert hook_count(model) == 0


@every_attack
def test_fooled_items_are_left_alone(name):
    model, batch = linear_case("input")
    objective = Identification(model, (model.predict(batch) + 1) % 3)  # never its own label
    result = attack_for(name, EPS)(objective, batch, generator=seeded())
    assert torch.equal(result.batch.x, batch.masked())
    assert result.succeeded.all()
    assert result.queries <= 3


@pytest.mark.parametrize("level", ["raw", "input"])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_autoattack_succeeds_exactly_where_it_can(level, goal):
    model, batch = linear_case(level)
    own = model.predict(batch)
    if goal == "untargeted":
        objective = Identification(model, own)
    else:  # the easiest target is what untargeted attacks reach
        enough = 1.01 * float(needed(model, batch, 1).max())
        reached = AutoAttack(enough, square_steps=5)(
            Identification(model, own), batch, generator=seeded()
        ).batch
        objective = Identification(model, model.predict(reached), targeted=True)
    for index, eps in enumerate(needed(model, batch, 1).tolist()):
        item, one = batch.item(index), objective.select([index])
        more = AutoAttack(1.02 * eps, square_steps=5)(one, item, generator=seeded())
        less = AutoAttack(0.98 * eps, square_steps=5)(one, item, generator=seeded())
        assert more.succeeded.all()
        assert not less.succeeded.any()
        assert torch.equal(less.batch.x, item.x)


@pytest.mark.parametrize("name", ["uap-deepfool", "autoattack", "square", "one-pixel", "jsma"])
@pytest.mark.parametrize("targeted", [False, True])
def test_sure_systems_are_attacked_as_well_as_others(name, targeted):
    """Logits far apart, as log-likelihood ratios are, where a softmax would be flat."""
    model, batch = linear_case("input")
    own = model.predict(batch)
    easiest = model.scores(batch).topk(2, dim=1).indices[:, 1]
    objective = Identification(model, easiest if targeted else own, targeted=targeted)
    factor = {"one-pixel": 5, "square": 3, "uap-deepfool": 4}.get(name, 1.5)
    attack = attack_for(name, min(0.5, factor * float(needed(model, batch, 1).max())))
    first = attack(objective, batch, generator=seeded())
    for parameter in model.network.parameters():
        parameter.data *= 1000
    second = attack(objective, batch, generator=seeded())
    assert torch.equal(first.succeeded, second.succeeded)
    assert first.succeeded.any()


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_autoattack_is_at_least_as_strong_as_pgd(tiny_model, goal):
    model = tiny_model.without_front_end()
    batch = Batch(torch.rand(6, 40, 30, generator=seeded(3)))
    best = model.scores(batch).topk(2, dim=1).indices
    targeted = goal == "targeted"
    objective = Identification(model, best[:, int(targeted)], targeted=targeted)
    pgd = GradientAttack("pgd", 0.02, steps=50)(objective, batch, generator=seeded())
    auto = AutoAttack(0.02, square_steps=1)(objective, batch, generator=seeded())
    assert 0 < int(pgd.succeeded.sum()) < 6  # so something is compared
    assert (auto.succeeded | ~pgd.succeeded).all()


def test_square_fools_with_room_and_keeps_to_the_decision_without():
    model, batch = linear_case("input")
    objective = Identification(model, model.predict(batch))
    need = needed(model, batch, 1)
    easy = Square(3 * float(need.max()))(objective, batch, generator=seeded())
    assert easy.succeeded.all()
    assert (easy.linf > 0).all()
    impossible = Square(0.9 * float(need.min()), queries=40)(objective, batch, generator=seeded())
    assert not impossible.succeeded.any()
    assert impossible.queries <= 40


def test_square_asks_once_a_step(monkeypatch):
    """ART asks about the same example three times a step; only new ones are scored."""
    model, batch = linear_case("input")
    objective = Identification(model, model.predict(batch))
    asked = []
    scores = System.scores
    monkeypatch.setattr(
        System,
        "scores",
        lambda self, x, rows=None: asked.append(x.clone()) or scores(self, x, rows),
    )
    Square(1e-4, queries=30)(objective.select([0]), batch.item(0), generator=seeded())
    assert 20 <= len(asked) <= 30
    assert all(not torch.equal(a, b) for a, b in zip(asked, asked[1:], strict=False))


def test_one_pixel_finds_the_one_that_matters():
    model, batch = linear_case("input")
    model.network.weight.data[:, 2, 3] = torch.tensor([-200.0, 0.0, 200.0])
    model.network.bias.data = torch.tensor([110.0, -1000.0, 0.0])
    batch = batch.with_x(batch.x.index_fill(2, torch.tensor([3]), 0.1))
    own = model.predict(batch)
    assert own.tolist() == [0, 0, 0]
    result = OnePixel(steps=5)(Identification(model, own), batch, generator=seeded())
    changed = (result.batch.x - batch.masked()).nonzero()
    assert result.succeeded.all()
    assert result.l0.tolist() == [1, 1, 1]
    assert changed[:, 1:].tolist() == [[2, 3]] * 3
    levels = 255 * result.batch.x[:, 2, 3]
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("theta", [0.5, -0.25])
def test_jsma_equals_its_greedy_loop(theta):
    model, batch = linear_case("input")
    # two classes that matter, so that the gradient is one everywhere
    model.network.weight.data[2] = 0.0
    model.network.bias.data[2] = -1e3
    own = model.predict(batch)
    result = Jsma(theta=theta, gamma=0.9)(Identification(model, own), batch, generator=seeded())
    assert result.succeeded.all()
    for index in range(len(batch)):
        item = batch.item(index)
        x, weight = item.x.flatten().clone(), model.network.weight[..., : item.x.shape[-1]]
        gradient = (weight[1 - own[index]] - weight[own[index]]).flatten().detach()
        bound = 1.0 if theta > 0 else 0.0
        while model.predict(item.with_x(x.reshape(item.x.shape))) == own[index]:
            sign = 1.0 if theta > 0 else -1.0
            best = torch.where(x == bound, -torch.inf, sign * gradient).topk(2).indices
            x[best] = (x[best] + theta).clamp(0, 1)
        got = result.batch.item(index).x.flatten()
        torch.testing.assert_close(got, x, atol=1e-6, rtol=0)
        assert 0 < int(result.l0[index]) <= 10


def test_jsma_stops_at_its_share_of_values():
    model, batch = linear_case("input")
    model.network.weight.data *= 1e-3
    model.network.bias.data = torch.tensor([1e3, 0.0, 0.0])
    result = Jsma(gamma=0.1)(Identification(model, model.predict(batch)), batch, generator=seeded())
    assert not result.succeeded.any()
    assert torch.equal(result.batch.x, batch.masked())
    # the first to be over the share of 60, 54 and 48 values are 8, 6 and 6, by two a gradient
    assert result.gradients == pytest.approx((4 + 3 + 3) / 3)


@pytest.mark.parametrize("level", ["raw", "input"])
def test_uap_is_one_perturbation_for_all(level):
    model, batch = linear_case(level)
    model.network.weight.data[1] = 1.0 + 0.1 * model.network.weight.data[1]
    ahead = (model.scores(batch)[:, 1:] - model.scores(batch)[:, :1]).max().detach()
    model.network.bias.data[0] = ahead + 2.0
    own = model.predict(batch)
    assert own.tolist() == [0, 0, 0]
    eps = 3 * float(needed(model, batch, 1).max())
    result = UniversalDeepFool(eps)(Identification(model, own), batch, generator=seeded())
    delta = result.batch.x - batch.masked()
    shortest = int(batch.lengths.min())
    assert result.succeeded.all()
    for other in delta[1:]:
        torch.testing.assert_close(other[..., :shortest], delta[0, ..., :shortest])
    assert (result.linf <= eps * (1 + 1e-4)).all()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_uap_knows_each_items_own_voice(order):
    """The same recording twice, accepted for one voice and half a right angle off the other."""
    model, batch = linear_case("raw")
    batch = Batch(batch.x[[0, 0]])
    near = nn.functional.normalize(model.embed(batch)[0].detach(), dim=0)
    away = nn.functional.normalize(torch.linalg.cross(near, torch.ones(3)), dim=0)
    references = torch.stack([near, near + away])[order]
    objective = Verification(model, references, threshold=0.8, goal="accept")
    assert objective.succeeded(batch).tolist() == [index == 0 for index in order]
    result = UniversalDeepFool(0.3)(objective, batch, generator=seeded())
    assert result.succeeded.all()
    assert torch.equal(result.batch.x[0], result.batch.x[1])


@pytest.mark.parametrize("level", ["raw", "input"])
def test_hopskipjump_comes_close_to_the_smallest_change(level):
    model, batch = linear_case(level)
    objective = Identification(model, model.predict(batch))
    smallest = needed(model, batch, 2)
    result = HopSkipJump(steps=10, queries=3000)(objective, batch, generator=seeded())
    assert result.succeeded.all()
    assert (result.l2 >= smallest * (1 - 1e-4)).all()
    assert (result.l2 <= 2 * smallest).all()
    more = HopSkipJump(steps=20, queries=6000)(objective, batch, generator=seeded())
    assert more.l2.sum() < result.l2.sum()


@pytest.mark.parametrize(
    "attack", [HopSkipJump(), OnePixel(steps=2), Square(EPS, queries=30)], ids=lambda a: a.name
)
def test_what_cannot_be_fooled_stays_as_it_is(attack):
    _, batch = linear_case("input")
    model = system_of(Deaf(), low=0.0)
    result = attack(Identification(model, model.predict(batch)), batch, generator=seeded())
    assert torch.equal(result.batch.x, batch.masked())
    assert not result.succeeded.any()
    if attack.name == "hopskipjump":
        assert result.queries == 101


@pytest.mark.parametrize(
    ("attack", "chunk"),
    [(OnePixel(steps=50, queries=600), 128), (Square(1e-4, queries=7), 1)],
    ids=lambda value: getattr(value, "name", None),
)
def test_query_cap_holds(attack, chunk):
    model, batch = linear_case("input")
    model.network.bias.data[0] = 1e3
    objective = Identification(model, model.predict(batch))
    result = attack(objective, batch, generator=seeded())
    assert attack.queries <= result.queries < attack.queries + chunk
    assert torch.equal(result.batch.x, batch.x)


def test_hopskipjump_keeps_the_closest_it_found_when_queries_run_out():
    model, batch = linear_case("input")
    objective = Identification(model, model.predict(batch))
    norms = []
    for queries in (150, 600):
        result = HopSkipJump(queries=queries)(objective, batch, generator=seeded())
        assert queries <= result.queries < queries + 64
        assert result.succeeded.all()
        norms.append(result.l2)
    assert (norms[1] < norms[0]).all()


def test_items_have_their_own_goals_behind_a_detector():
    """Its logits depend on the item's label, which ART never names."""
    model, batch = linear_case("input")
    own = model.predict(batch)
    eps = 1.3 * float(needed(model, batch, 1).max())
    silent = _Silent()
    guarded = Guarded(Identification(model, own), silent, threshold=1.0, scale=1.0)
    result = AutoAttack(eps, steps=20, square_steps=5)(guarded, batch, generator=seeded())
    assert result.succeeded.all()
    assert (model.predict(result.batch) != own).all()


class _Silent(nn.Module):
    def forward(self, batch):
        return batch.x.new_zeros(len(batch)) - 1e3


def test_float64_systems_stay_so():
    model, batch = linear_case("input")
    model = model.double()
    batch = batch.with_x(batch.x.double())
    objective = Identification(model, model.predict(batch))
    eps = 1.3 * float(needed(model, batch, 1).max())
    for attack in (
        AutoAttack(eps, steps=20, square_steps=5),
        UniversalDeepFool(eps),
        Square(3 * eps),
    ):
        result = attack(objective, batch, generator=seeded())
        assert result.batch.x.dtype == torch.float64
        assert (result.linf <= attack.eps * (1 + 1e-9)).all()


@every_attack
def test_missing_art_says_what_to_install(monkeypatch, unwilling, spectrograms, name):
    monkeypatch.setitem(sys.modules, "art", None)
    with pytest.raises(MissingDependencyError, match=r"Toolbox.*pip install '\.\[attacks\]'"):
        ATTACKS[name](unwilling, spectrograms, generator=seeded())


def test_importing_art_leaves_log_files_open(monkeypatch, tmp_path):
    evasion()
    monkeypatch.delitem(sys.modules, "art")  # so that the import configures logging once more
    logger, configure = logging.getLogger("somebody.else"), logging.config.dictConfig
    handler = logging.FileHandler(tmp_path / "log.txt", mode="w")
    logger.addHandler(handler)
    logger.warning("before")
    evasion()
    logger.warning("after")
    logger.removeHandler(handler)
    handler.close()
    assert (tmp_path / "log.txt").read_text().split() == ["before", "after"]
    assert logging.config.dictConfig is configure


def test_waveforms_are_refused_by_attacks_on_images():
    model, batch = linear_case("raw")
    objective = Identification(model, model.predict(batch))
    with pytest.raises(AttackError, match=r"got input of shape \(3, 60\).*work at level 'input'"):
        ATTACKS["one-pixel"](objective, batch, generator=seeded())
    with pytest.raises(AttackError, match="one-pixel cannot work at level 'raw', expected input"):
        make_attack("one-pixel", eps=EPS)


def test_square_folds_waveforms_that_are_no_multiple_of_a_row():
    model, batch = linear_case("raw")
    objective = Identification(model, model.predict(batch))
    assert batch.x.shape[1] % 8  # 60 samples make eight rows of eight, filled up with zeros
    eps = 3 * float(needed(model, batch, 1).max())
    result = Square(eps, queries=100)(objective, batch, generator=seeded())
    assert bool(result.succeeded.all())
    assert result.batch.x.shape == batch.x.shape
    short = Batch(batch.x[:, :9])
    with pytest.raises(AttackError, match=r"got input of shape \(3, 9\)"):
        Square(eps)(objective, short, generator=seeded())


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (Jsma, {"theta": 0.0}, "theta is 0.0 and gamma 0.05, expected theta in"),
        (Jsma, {"theta": 1.5}, "theta is 1.5"),
        (Jsma, {"gamma": 0.0}, "gamma 0.0"),
        (Jsma, {"gamma": 1.5}, "gamma 1.5"),
        (UniversalDeepFool, {"eps": 8}, "eps is 8, expected more than 0"),
        (UniversalDeepFool, {"eps": EPS, "steps": 0}, "steps is 0, expected ≥ 1"),
        (AutoAttack, {"eps": 0.0}, "eps is 0.0, expected more than 0"),
        (AutoAttack, {"eps": EPS, "steps": 0}, "steps is 0, targets 9 and square_steps 5000, exp"),
        (AutoAttack, {"eps": EPS, "targets": 0}, "targets 0 and square_steps 5000"),
        (AutoAttack, {"eps": EPS, "square_steps": 0}, "square_steps 0, expected ≥ 1 each"),
        (OnePixel, {"steps": 0}, "steps is 0 and queries 4000, expected ≥ 1 each"),
        (OnePixel, {"queries": 0}, "queries 0, expected ≥ 1 each"),
        (Square, {"eps": -1.0}, "eps is -1.0, expected more than 0"),
        (Square, {"eps": EPS, "queries": 0}, "queries is 0, expected ≥ 1"),
        (HopSkipJump, {"steps": 0}, "steps is 0 and queries 2000, expected ≥ 1 each"),
        (HopSkipJump, {"queries": 0}, "queries 0, expected ≥ 1 each"),
    ],
)
def test_senseless_settings_are_an_error(kind, settings, match):
    with pytest.raises(AttackError, match=match):
        kind(**settings)


@every_attack
def test_settings_make_the_attack_again(name):
    settings = ATTACKS[name].settings()
    assert settings.pop("name") == name
    eps = settings.pop("eps", None)
    assert make_attack(name, eps=eps, level="input", settings=settings) == ATTACKS[name]
