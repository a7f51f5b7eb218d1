"""No attack gets stuck where the input gives it no slope to follow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.base import System
from nip_audio.attacks.fakebob import nes_gradient
from nip_audio.attacks.objectives import Guarded, Identification, Objective, Verification
from nip_audio.attacks.registry import ATTACKS, make_attack, names_at
from nip_audio.attacks.start import break_ties, derived_generator, first_step
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import AttackError

EPS = 0.05
EDGE = EPS / 2  # rms of the change at which every decision changes
SELF, OTHER = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
SHAPES = {"raw": (64,), "input": (8, 8), "picture": (1, 8, 8)}
GOALS = ("reject", "accept", "untargeted", "targeted")
CASES = [
    *((name, level) for level in ("raw", "input") for name in names_at(level)),
    *((name, "picture") for name, entry in ATTACKS.items() if entry.images_only),
]
# enough to succeed with; an attack that is not here runs with its defaults, and with EPS if it
# takes an ε
SETTINGS: dict[str, dict[str, object]] = {
    "fgsm": {"eps": EPS},
    "bim": {"eps": EPS},
    "mi-fgsm": {"eps": EPS},
    "pgd": {"eps": EPS},
    "pgd-l2": {"eps": EPS * 8},
    "eot": {"eps": EPS, "draws": 2},
    "jsma": {"theta": 0.05, "gamma": 0.5},  # the random pair alone does not fool
    "uap": {"eps": EPS, "steps": 20},
    "uap-deepfool": {"eps": EPS},
    "autoattack": {"eps": EPS, "steps": 5, "square_steps": 50},
    "deepfool": {},
    "cw": {"steps": 50, "binary_search_steps": 3, "learning_rate": 0.01, "initial_const": 1.0},
    "auna": {"eps": EPS, "queries": 20},
    "auna-grown": {"steps": 20},
    "pwa": {"queries": 200},
    "boundary": {"steps": 20, "queries": 60},
    "one-pixel": {"queries": 400},
    "square": {"eps": EPS, "queries": 50},
    "hopskipjump": {"queries": 100},
    "fakebob": {"eps": EPS, "steps": 20, "learning_rate": 0.01},
    "kenansville": {},
    "spatial": {"rotations": 3, "translations": 3},
    "s-ala": {"eps": EPS, "front": 1, "tail": 1, "weight": 10.0},
    "r-ala": {"eps": EPS, "front": 1, "tail": 1},
    "pgd-e2e": {"eps": EPS, "steps": 5},
}
# what an attack does not do from any start
REFUSED = {
    **{(name, "targeted"): "cannot aim at a target" for name in ("deepfool", "pwa", "boundary")},
    **{
        (name, goal): "is for untargeted closed-set identification"
        for name in ("s-ala", "r-ala")
        for goal in ("accept", "reject", "targeted")
    },
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(count: int = 2) -> torch.Tensor:
    """(count, 64) of ±1/4, all the same: sums of these are exact."""
    x = torch.randint(2, (1, 64), generator=seeded(5)) / 2 - 0.25
    return x.expand(count, 64).clone()


class Bowl(nn.Module):
    """Two layers: h = W (x − centre), and (1, mean square of h, 0, 0).

    W is 64 by 64 of ±1, orthogonal but for its length. At the centre, by default ``start()``, h is
    exactly zero, and so is the gradient of any score. With a floor it is zero all around, too.
    """

    def __init__(self, floor: float = 0.0, centre: torch.Tensor | None = None) -> None:
        super().__init__()
        two, weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.ones(1, 1)
        for _ in range(6):
            weight = torch.kron(weight, two)
        self.first = nn.Linear(64, 64)
        self.first.weight.data = weight
        self.first.bias.data = -(weight @ (start(1)[0] if centre is None else centre))
        self.floor = floor

    def forward(self, x, lengths=None):
        hidden = nn.functional.relu(self.first(x.flatten(1)).square() - self.floor)
        bowl = hidden.mean(dim=1) / (64 * EDGE**2)
        return torch.stack([torch.ones_like(bowl), bowl, 0 * bowl, 0 * bowl], dim=1)


def model_of(network: nn.Module) -> InstrumentedModel:
    head = CosineHead(torch.stack([SELF, OTHER, -OTHER]))
    return InstrumentedModel(
        network, head=head, output_kind="cosine", bounds=Bounds(-1.0, 1.0), scale=10.0
    ).eval()


def objective_of(goal: str, *, network: nn.Module | None = None, count: int = 2) -> Objective:
    model = model_of(Bowl() if network is None else network)
    if goal in ("accept", "reject"):
        voice = (OTHER if goal == "accept" else SELF).expand(count, 4)
        return Verification(model, voice, threshold=0.5**0.5, goal=goal)
    label = torch.full((count,), int(goal == "targeted"))
    return Identification(model, label, targeted=goal == "targeted")


def batch_at(level: str) -> Batch:
    return Batch(start().reshape(2, *SHAPES[level]))


def attack_of(name: str, level: str = "raw"):
    default = {"eps": EPS} if "eps" in ATTACKS[name].settings else {}
    settings = dict(SETTINGS.get(name, default))
    level = "input" if level == "picture" else level
    return make_attack(name, eps=settings.pop("eps", None), level=level, settings=settings)


def test_every_attack_is_tried():
    assert set(SETTINGS) <= set(ATTACKS)
    assert {name for name, _ in CASES} == set(ATTACKS)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(("name", "level"), CASES)
def test_every_attack_leaves_a_start_whose_gradient_is_exactly_zero(name, level, goal):
    objective, batch, attack = objective_of(goal), batch_at(level), attack_of(name, level)
    x = batch.x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective.logits(batch.with_x(x))[:, 0].sum(), x)
    assert gradient.eq(0).all()
    if (name, goal) in REFUSED:
        with pytest.raises(AttackError, match=REFUSED[name, goal]):
            attack(objective, batch, generator=seeded(1))
        return
    result = attack(objective, batch, generator=seeded(1))
    assert result.succeeded.all()
    assert torch.equal(result.succeeded, objective.succeeded(result.batch))
    assert result.batch.x.abs().max() <= 1
    if attack.limit is not None:
        # ε, in float32
        assert result.linf.max() <= attack.limit * (1 + 1e-4) + 1e-7
    if name == "pgd-l2":
        assert result.l2.max() <= attack.eps * (1 + 1e-4) + 1e-7
    if name == "jsma":
        assert result.l0.max() <= attack.gamma * 64 + 2
    again = attack(objective, batch, generator=seeded(1))
    assert torch.equal(again.batch.x, result.batch.x)


@pytest.mark.parametrize("name", [n for n, e in ATTACKS.items() if e.kind.white_box])
def test_a_system_without_gradient_beside_the_input_either_is_one_clear_error(name):
    level = "raw" if name in names_at("raw") else "input"
    objective = objective_of("untargeted", network=Bowl(floor=10.0))
    with pytest.raises(AttackError, match="the system gives no gradient at this input, nor clo"):
        attack_of(name, level)(objective, batch_at(level), generator=seeded())


@pytest.mark.parametrize("name", ["bim", "deepfool"])
def test_the_random_step_leaves_the_rest_of_eps_to_the_attack(name):
    batch, attack = batch_at("raw"), attack_of(name)
    given = batch.x.clone()
    rest, moved = first_step(attack, batch, Bounds(-1.0, 1.0), derived_generator(seeded(1)))
    step = (moved - given).abs().amax()
    assert torch.equal(batch.x, given)
    if attack.limit is None:
        assert rest == attack
        assert 0 < step < 2e-4
    else:
        assert 0 < step < attack.limit / 5
        assert step + rest.limit == pytest.approx(attack.limit)
        assert rest.steps == attack.steps


def test_nothing_is_drawn_from_the_generator_for_the_step():
    generator = seeded(1)
    before = generator.get_state()
    assert (
        derived_generator(generator).initial_seed() == derived_generator(generator).initial_seed()
    )
    assert torch.equal(generator.get_state(), before)


def test_fgsm_from_a_stationary_start_is_a_random_step_and_fgsm_with_what_is_left():
    objective, batch = objective_of("reject"), batch_at("raw")
    x = attack_of("fgsm")(objective, batch, generator=seeded(1)).batch.x
    # the slope leads away from the start, so that the signs of both steps are the same
    torch.testing.assert_close((x - batch.x).abs(), torch.full_like(x, EPS))
    other = attack_of("fgsm")(objective, batch, generator=seeded(2)).batch.x
    assert not torch.equal(x, other)


@pytest.mark.parametrize("name", ["fgsm", "bim", "mi-fgsm", "deepfool", "cw", "fakebob"])
def test_items_beside_one_that_is_stationary_are_attacked_as_ever(name):
    """Of two items only the first has no slope; the second's result is that of before."""
    x = start()
    x[1] += 0.01 * torch.randn(64, generator=seeded(3))
    objective = objective_of("reject")
    attack = attack_of(name)
    both = attack(objective, Batch(x), generator=seeded(1))
    assert both.succeeded.all()
    if name == "fakebob":  # its draws are those of the batch
        return
    alone = attack(objective.select([1]), Batch(x[1:]), generator=seeded(1))
    # sums of 64 in float32, in another order for one item than for two
    torch.testing.assert_close(both.batch.x[1:], alone.batch.x, atol=1e-4, rtol=0)


def test_an_item_that_fools_already_is_not_moved():
    """Accepted as itself: there is nothing to gain, and no slope."""
    objective = Verification(
        model_of(Bowl()), SELF.expand(2, 4), threshold=0.9, goal="accept", self_reference=True
    )
    assert not objective.stationary_start
    result = attack_of("fgsm")(objective, batch_at("raw"), generator=seeded())
    assert result.succeeded.all()
    assert result.linf.eq(0).all()


def test_padding_stays_out_of_the_step():
    batch = Batch(torch.cat([start(), torch.full((2, 8), 0.5)], dim=1), torch.tensor([64, 64]))

    class Cut(Bowl):
        def forward(self, x, lengths=None):
            return super().forward(x[:, :64])

    result = attack_of("bim")(objective_of("reject", network=Cut()), batch, generator=seeded())
    assert result.succeeded.all()
    assert result.batch.x[:, 64:].eq(0).all()


@pytest.mark.parametrize(("name", "least"), [("uap", EDGE), ("uap-deepfool", 0.9 * EPS)])
def test_a_universal_perturbation_stays_one_for_all(name, least):
    x = start()
    x[1] += 0.01
    result = attack_of(name)(objective_of("reject"), Batch(x), generator=seeded(1))
    change = result.batch.x - x
    # differences of values up to 1 in float32
    torch.testing.assert_close(change[0], change[1], atol=1e-6, rtol=0)
    assert change.abs().max() > least
    assert result.succeeded.all()


def test_jsma_says_if_it_may_not_leave_the_start():
    attack = make_attack("jsma", level="input", settings={"gamma": 0.03})
    with pytest.raises(AttackError, match=r"gamma is 0\.03, which .* raise gamma"):
        attack(objective_of("reject"), batch_at("input"), generator=seeded())


@pytest.mark.parametrize("theta", [0.05, -0.05])
def test_jsma_moves_two_values_that_can_move(theta):
    x = start()
    x[:, :60] = 1.0 if theta > 0 else -1.0
    attack = make_attack("jsma", level="input", settings={"theta": theta})
    _, moved = attack._first_step(Batch(x.reshape(2, 8, 8)), Bounds(-1.0, 1.0), seeded())
    change = (moved - x.reshape(2, 8, 8)).flatten(1)
    assert (change != 0).sum(dim=1).tolist() == [2, 2]
    assert change[:, :60].eq(0).all()


# --- the recording against itself: the gradient at a maximum is rounding noise, not zero ---


@pytest.fixture
def recordings() -> Batch:
    return Batch(0.2 * (torch.rand(2, 9000, generator=seeded(7)) - 0.5))


def itself(model: InstrumentedModel, batch: Batch, *, known: bool) -> Verification:
    with torch.no_grad():
        voices = model.embed(batch)
    return Verification(model, voices, threshold=0.5, goal="reject", self_reference=known)


@pytest.mark.parametrize("name", ["fgsm", "bim", "mi-fgsm"])
def test_against_itself_the_objective_says_that_the_start_is_stationary(
    tiny_model, recordings, name
):
    objective = itself(tiny_model, recordings, known=True)
    torch.testing.assert_close(objective.scores(recordings).detach(), torch.ones(2))  # the maximum
    attack = make_attack(name, eps=0.002)
    first = attack(objective, recordings, generator=seeded(1))
    assert first.linf.max() <= 0.002 * (1 + 1e-4) + 1e-7
    noise = 0.002 * (2 * torch.randint(2, (2, 9000), generator=seeded(2)) - 1)
    at_random = objective.scores(recordings.with_x(recordings.x + noise))
    assert (objective.scores(first.batch) < at_random).all()
    again = attack(objective, recordings, generator=seeded(1))
    other = attack(objective, recordings, generator=seeded(2))
    assert torch.equal(first.batch.x, again.batch.x)
    assert not torch.equal(first.batch.x, other.batch.x)


@pytest.mark.parametrize("name", ["pgd", "eot", "pgd-l2", "autoattack", "pgd-e2e"])
def test_attacks_that_start_at_random_keep_their_start(tiny_model, recordings, name):
    attack = attack_of(name)
    assert not attack.starts_at_input
    known, unknown = (
        attack(itself(tiny_model, recordings, known=k), recordings, generator=seeded(1)).batch.x
        for k in (True, False)
    )
    assert torch.equal(known, unknown)


def test_parts_and_guarded_ones_know_it_too(tiny_model, recordings):
    objective = itself(tiny_model, recordings, known=True)
    assert objective.select([1]).stationary_start
    guarded = Guarded(objective, nn.Identity(), threshold=1.0, scale=1.0)
    assert guarded.stationary_start
    assert guarded.select([0]).stationary_start
    assert not itself(tiny_model, recordings, known=False).stationary_start


def test_fakebob_leaves_a_start_where_its_estimate_is_exactly_zero():
    """At silence a function that is even is estimated to be flat, whatever the directions."""
    silence = Batch(torch.zeros(2, 64))
    objective = objective_of("accept", network=Bowl(centre=torch.zeros(64)))
    system = System(objective, silence)
    slope = nes_gradient(system, silence.x, [0, 1], samples=4, sigma=0.001, generator=seeded())
    assert slope.eq(0).all()
    attack = attack_of("fakebob")
    first, again = (attack(objective, silence, generator=seeded(1)) for _ in range(2))
    assert first.succeeded.all()
    assert torch.equal(first.batch.x, again.batch.x)


def test_ties_are_broken_at_random_and_slopes_are_kept():
    slope = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, -1.0]])
    broken = break_ties(slope, seeded(1))
    assert torch.equal(broken[1], slope[1])
    assert (broken[0] != 0).all()
    assert torch.equal(broken, break_ties(slope, seeded(1)))
    generator = seeded(1)
    before = generator.get_state()
    assert torch.equal(break_ties(slope[1:], generator), slope[1:])
    assert torch.equal(generator.get_state(), before)  # nothing is drawn where there is a slope
