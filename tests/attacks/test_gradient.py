from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from nip_audio.attacks.gradient import GRADIENT_ATTACKS, GradientAttack
from nip_audio.attacks.objectives import Identification, Objective, Verification
from nip_audio.attacks.registry import make_attack
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError, MissingDependencyError
from tests.tolerance import assert_same_but_for_signs

EPS = 0.002
NAMES = GRADIENT_ATTACKS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    x = 0.2 * (torch.rand(2, 9000, generator=seeded(7)) - 0.5)
    x[0, :50] = 1.0  # at a bound, where ε must give way to it
    return Batch(x, torch.tensor([9000, 8000]))


@pytest.fixture
def references() -> torch.Tensor:
    return torch.randn(2, 6, generator=seeded(8))


@pytest.fixture(params=["accept", "reject", "untargeted", "targeted"])
def objective(request, tiny_model, batch, references) -> Objective:
    if request.param in ("accept", "reject"):
        return Verification(tiny_model, references, threshold=0.2, goal=request.param)
    own = tiny_model.predict(batch)
    targeted = request.param == "targeted"
    return Identification(tiny_model, (own + 1) % 3 if targeted else own, targeted=targeted)


@pytest.fixture
def accept(tiny_model, references) -> Verification:
    return Verification(tiny_model, references, threshold=0.2, goal="accept")


class BreaksOnSecondCall(Verification):
    calls = 0

    def logits(self, batch):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("broken")
        return super().logits(batch)


class Rounded(nn.Module):
    """A system whose answer does not follow its input smoothly."""

    def forward(self, x, lengths=None):
        return x[:, :6].round() + 1.0


class Deaf(nn.Module):
    def forward(self, x, lengths=None):
        return torch.ones(len(x), 6)


def loss_gradient(objective: Objective, batch: Batch, x: torch.Tensor) -> torch.Tensor:
    """Gradient of what the attacker minimises."""
    x = x.clone().requires_grad_(True)
    logits = objective.logits(batch.with_x(batch.with_x(x).masked()))
    loss = nn.functional.cross_entropy(logits, objective.label, reduction="sum")
    return torch.autograd.grad(loss if objective.targeted else -loss, x)[0]


def test_fgsm_equals_its_formula(objective, batch):
    got = make_attack("fgsm", eps=EPS)(objective, batch, generator=seeded()).batch
    clean = batch.masked()
    step = EPS * loss_gradient(objective, batch, clean).sign()
    expected = batch.with_x((clean - step).clamp(-1, 1)).masked()
    assert_same_but_for_signs(got.x, expected)


def test_pgd_equals_its_loop_from_the_same_start(objective, batch):
    got = GradientAttack("pgd", EPS, steps=4)(objective, batch, generator=seeded(3)).batch
    clean = batch.masked()
    start = torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=seeded(3))))
    x = clean + (torch.rand(clean.shape, generator=start) * 2 * EPS - EPS)
    x = x.clamp(-1, 1)
    for _ in range(4):
        x = x - 0.2 * EPS * loss_gradient(objective, batch, x).sign()
        x = (clean + (x - clean).clamp(-EPS, EPS)).clamp(-1, 1)
    expected = batch.with_x(x).masked()
    assert_same_but_for_signs(got.x, expected)


def test_bim_is_pgd_from_the_input_itself(objective, batch):
    got = GradientAttack("bim", EPS, steps=3)(objective, batch, generator=seeded(3)).batch
    clean = batch.masked()
    x = clean
    for _ in range(3):
        x = x - 0.2 * EPS * loss_gradient(objective, batch, x).sign()
        x = (clean + (x - clean).clamp(-EPS, EPS)).clamp(-1, 1)
    assert_same_but_for_signs(got.x, batch.with_x(x).masked())


def test_mi_fgsm_gathers_momentum(objective, batch):
    got = GradientAttack("mi-fgsm", EPS, steps=3)(objective, batch, generator=seeded(3)).batch
    clean = batch.masked()
    x, velocity = clean, torch.zeros_like(clean)
    for _ in range(3):
        velocity = velocity - loss_gradient(objective, batch, x).sign()
        x = x + 0.2 * EPS * velocity.sign()
        x = (clean + (x - clean).clamp(-EPS, EPS)).clamp(-1, 1)
    assert_same_but_for_signs(got.x, batch.with_x(x).masked())


def test_eot_follows_the_mean_over_random_changes(accept, batch):
    got = GradientAttack("eot", EPS, steps=1, draws=2)(accept, batch, generator=seeded(3)).batch
    generator = seeded(3)
    start = torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    clean = batch.masked()
    x = (clean + (torch.rand(clean.shape, generator=start) * 2 * EPS - EPS)).clamp(-1, 1)
    x = x.requires_grad_(True)
    total = 0.0
    for _ in range(2):
        gain = 10 ** ((6 * torch.rand((2, 1), generator=generator) - 3) / 20)
        noise = EPS / 2 * torch.randn(x.shape, generator=generator)
        changed = batch.with_x((x * gain + noise).clamp(-1, 1))
        total = total + accept.logits(batch.with_x(changed.masked())).double()
    loss = nn.functional.cross_entropy(total / 2, accept.label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    x = (x - 0.2 * EPS * gradient.sign()).detach()
    expected = (clean + (x - clean).clamp(-EPS, EPS)).clamp(-1, 1)
    assert_same_but_for_signs(got.x, batch.with_x(expected).masked())


@pytest.mark.parametrize("name", NAMES)
def test_eps_bounds_padding_and_report(objective, batch, name):
    junk = batch.x.clone()
    junk[1, 8000:] = 0.5
    given = batch.with_x(junk.clone())
    attack = GradientAttack(name, eps=EPS, steps=3, step_share=0.4, draws=2)
    result = attack(objective, given, generator=seeded())
    x, clean = result.batch.x, batch.masked()
    delta = x - clean
    assert delta.abs().max() <= EPS * (1 + 1e-4)
    assert delta[:, 100:8000].abs().max() >= 0.9 * EPS
    assert x.min() >= -1.0
    assert x.max() <= 1.0
    assert x[1, 8000:].eq(0).all()
    assert torch.equal(given.x, junk)  # what was given is as it was
    assert torch.equal(result.batch.lengths, batch.lengths)
    assert torch.equal(result.succeeded, objective.succeeded(result.batch))
    torch.testing.assert_close(result.linf, delta.abs().amax(1))
    torch.testing.assert_close(result.l2, delta.norm(dim=1))
    snr_db = 10 * torch.log10((clean**2).sum(1) / (delta**2).sum(1))
    torch.testing.assert_close(result.snr_db, snr_db, atol=1e-3, rtol=0)
    assert result.gradients == {"fgsm": 1, "eot": 3 * 2}.get(name, 3)
    assert not x.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_same_generator_same_result_and_the_global_one_untouched(accept, batch, name):
    before = torch.get_rng_state()
    first = GradientAttack(name, eps=EPS, steps=2)(accept, batch, generator=seeded(1)).batch.x
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second = GradientAttack(name, eps=EPS, steps=2)(accept, batch, generator=seeded(1)).batch.x
    other = GradientAttack(name, eps=EPS, steps=2)(accept, batch, generator=seeded(2)).batch.x
    torch.set_rng_state(before)
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (name not in ("pgd", "eot"))  # no other starts at random


@pytest.mark.parametrize("breaks", [False, True], ids=["runs", "raises"])
@pytest.mark.parametrize("name", NAMES)
def test_system_is_left_as_found(tiny_model, references, batch, hook_count, name, breaks):
    """Also in training mode, where one more forward pass would move the batch statistics."""
    kind = BreaksOnSecondCall if breaks else Verification
    objective = kind(tiny_model, references, threshold=0.2, goal="accept").train()
    tiny_model.network.pool_norm.eval()
    tiny_model.network.frames[0].requires_grad_(False)
    for parameter in tiny_model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = {
        "wants": [p.requires_grad for p in objective.parameters()],
        "modes": [m.training for m in objective.modules()],
        "state": {k: v.clone() for k, v in tiny_model.state_dict().items()},
    }
    attack = GradientAttack(name, eps=EPS, steps=2)
    rng = torch.get_rng_state()
    if breaks:
        with pytest.raises(RuntimeError, match="broken"):
            attack(objective, batch, generator=seeded())
    else:
        attack(objective, batch, generator=seeded())
    assert [p.requires_grad for p in objective.parameters()] == before["wants"]
    assert [m.training for m in objective.modules()] == before["modes"]
    assert all(p.grad.eq(7.0).all() for p in tiny_model.parameters())
    after = tiny_model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before["state"].items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.is_grad_enabled()
    assert hook_count(tiny_model) == 0


@pytest.mark.parametrize("name", NAMES)
def test_input_without_padding_is_not_made_to_want_gradients(accept, batch, name):
    given = Batch(batch.x)
    GradientAttack(name, eps=EPS, steps=1)(accept, given, generator=seeded())
    assert not given.x.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_frozen_model_and_no_grad_around_do_not_matter(accept, batch, name):
    attack = GradientAttack(name, eps=EPS, steps=2)
    expected = attack(accept, batch, generator=seeded()).batch.x
    accept.requires_grad_(False)
    with torch.no_grad():
        got = attack(accept, batch, generator=seeded()).batch.x
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", NAMES)
def test_acceptance_raises_the_cosine_and_rejection_lowers_it(tiny_model, references, batch, name):
    for goal, sign in (("accept", 1), ("reject", -1)):
        objective = Verification(tiny_model, references, threshold=0.2, goal=goal)
        result = make_attack(name, eps=EPS)(objective, batch, generator=seeded())
        change = objective.scores(result.batch) - objective.scores(batch)
        assert (sign * change > 0.001).all()


@torch.no_grad()
def test_identification_leaves_its_label_or_reaches_the_target(tiny_model, batch):
    own = tiny_model.predict(batch)
    target = (own + 1) % 3
    attack = make_attack("pgd", eps=EPS)
    item = torch.arange(2)
    away = attack(Identification(tiny_model, own), batch, generator=seeded()).batch
    clean = tiny_model.scores(batch).softmax(1)
    assert (tiny_model.scores(away).softmax(1)[item, own] < clean[item, own]).all()
    objective = Identification(tiny_model, target, targeted=True)
    towards = attack(objective, batch, generator=seeded()).batch
    assert (tiny_model.scores(towards).softmax(1)[item, target] > clean[item, target]).all()


def test_items_of_a_batch_are_attacked_independently(accept, batch):
    together = make_attack("fgsm", eps=EPS)(accept, batch, generator=seeded()).batch
    alone = make_attack("fgsm", eps=EPS)(
        accept.select([1]), batch.item(1), generator=seeded()
    ).batch
    assert_same_but_for_signs(together.x[1:, :8000], alone.x)


@pytest.mark.parametrize("network", [Rounded(), Deaf()])
@pytest.mark.parametrize("name", NAMES)
def test_system_without_gradient_is_an_error(batch, references, network, name):
    model = InstrumentedModel(network, bounds=Bounds(-1.0, 1.0)).eval()
    objective = Verification(model, references, threshold=0.2, goal="accept")
    with pytest.raises(AttackError, match="the system gives no gradient at this input"):
        make_attack(name, eps=EPS)(objective, batch, generator=seeded())


@pytest.mark.parametrize("broken", [0.5, float("nan"), 1.003])
def test_broken_promise_is_an_error(broken):
    clean = torch.tensor([[0.0, 0.999]])
    x = torch.tensor([[0.0, broken]])
    with pytest.raises(AttackError, match="more than eps|left the bounds|not finite"):
        GradientAttack("fgsm", eps=0.005)._keep_promise(x, clean, Bounds(-1.0, 1.0))


@pytest.mark.parametrize("eps", [0.0, -0.002, 8, 0.51, float("nan")])
def test_senseless_eps_is_an_error(eps):
    with pytest.raises(AttackError, match=r"expected more than 0 and at most 0.5 .* 0.0314"):
        make_attack("fgsm", eps=eps)


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_share": 0.0}, {"step_share": -1.0}])
def test_senseless_steps_are_an_error(options):
    with pytest.raises(AttackError, match="expected ≥ 1, ≥ 1 and > 0"):
        GradientAttack("pgd", eps=EPS, **options)


@pytest.mark.parametrize(("name", "near"), [("pdg", "pgd"), ("FGSM!", "fgsm"), ("fgms", "fgsm")])
def test_unknown_name_lists_near_ones(name, near):
    with pytest.raises(AttackError, match=f"no attack {name!r}; did you mean .*{near}"):
        make_attack(name, eps=EPS)


def test_missing_foolbox_says_what_to_install(monkeypatch, accept, batch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[attacks\]'"):
        make_attack("fgsm", eps=EPS)(accept, batch, generator=seeded())
