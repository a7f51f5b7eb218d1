"""What every attack promises, whoever implements it."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from nip_audio.attacks.objectives import Identification
from nip_audio.attacks.registry import ATTACKS, make_attack, names_at
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError
from nip_audio.image.models.lenet import LeNet1

# cheap settings; an attack that is not here runs with its defaults, and with EPS if it takes an ε
CHEAP: dict[str, dict[str, object]] = {
    "fgsm": {"eps": 0.01},
    "bim": {"eps": 0.01, "steps": 2},
    "mi-fgsm": {"eps": 0.01, "steps": 2},
    "pgd": {"eps": 0.01, "steps": 2},
    "pgd-l2": {"eps": 0.1, "steps": 2},
    "eot": {"eps": 0.01, "steps": 2, "draws": 2},
    "jsma": {},
    "uap": {"eps": 0.01, "steps": 3},
    "uap-deepfool": {"eps": 0.01},
    "autoattack": {"eps": 0.01, "steps": 3, "square_steps": 10},
    "deepfool": {"steps": 3},
    "cw": {"steps": 4, "binary_search_steps": 2, "learning_rate": 0.01},
    "auna": {"eps": 0.01, "queries": 5},
    "auna-grown": {"steps": 5},
    "pwa": {"queries": 60},
    "boundary": {"steps": 20, "queries": 60},
    "one-pixel": {"queries": 60},
    "square": {"eps": 0.03, "queries": 10},
    "hopskipjump": {"queries": 60},
    "fakebob": {"eps": 0.01, "steps": 2, "samples": 4},
    "kenansville": {"steps": 3},
    "spatial": {"rotations": 3, "translations": 3},
    "s-ala": {"eps": 0.01, "steps": 2, "front": 1, "tail": 1},
    "r-ala": {"eps": 0.01, "steps": 2, "front": 1, "tail": 1},
    "pgd-e2e": {"eps": 0.01, "steps": 2, "restarts": 2},
}
EPS = 0.01
CASES = [
    *((name, level) for level in ("raw", "input") for name in names_at(level)),
    *((name, "picture") for name, entry in ATTACKS.items() if entry.images_only),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack_of(name: str, level: str):
    default = {"eps": EPS} if "eps" in ATTACKS[name].settings else {}
    settings = dict(CHEAP.get(name, default))
    level = "input" if level == "picture" else level
    return make_attack(name, eps=settings.pop("eps", None), level=level, settings=settings)


def world(tiny_model: InstrumentedModel, level: str) -> tuple[InstrumentedModel, Batch]:
    """A model and two items of different length, with junk in the padding."""
    if level == "picture":
        return picture_world()
    x = 0.2 * (torch.rand(2, 4000, generator=seeded(7)) - 0.5)
    batch = Batch(x, torch.tensor([4000, 3200]))
    if level == "raw":
        return tiny_model, batch
    features = tiny_model.to_input(batch)
    junk = features.x.clone()
    junk[1, :, int(features.lengths[1]) :] = 0.5
    return tiny_model.without_front_end(), features.with_x(junk)


def picture_world() -> tuple[InstrumentedModel, Batch]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = InstrumentedModel(LeNet1(), head=nn.Linear(192, 3), bounds=Bounds(0.0, 1.0)).eval()
    return model, Batch(torch.rand(2, 1, 28, 28, generator=seeded(7)))


def state_of(model: InstrumentedModel) -> list[object]:
    return [
        *((p.requires_grad, p.grad, p.clone()) for p in model.parameters()),
        *(b.clone() for b in model.buffers()),
        *(m.training for m in model.modules()),
    ]


def global_generators() -> list[object]:
    _, keys, *place = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state(), torch.from_numpy(keys.copy()), tuple(place), random.getstate()]


def same(first: list[object], second: list[object]) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, tuple):
            return all(equal(i, j) for i, j in zip(a, b, strict=True))
        return a == b

    return all(equal(a, b) for a, b in zip(first, second, strict=True))


def test_settings_are_those_of_registered_attacks():
    assert set(CHEAP) <= set(ATTACKS)
    assert {name for name, _ in CASES} == set(ATTACKS)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_contract(tiny_model, hook_count, name, level):
    model, batch = world(tiny_model, level)
    objective = Identification(model, model.predict(batch))
    given, before = batch.x.clone(), state_of(model)
    rngs = global_generators()
    attack = attack_of(name, level)

    result = attack(objective, batch, generator=seeded(1))

    x, clean = result.batch.x, batch.masked()
    delta = (x - clean).flatten(1)
    assert x.shape == batch.x.shape
    assert x.dtype == batch.x.dtype
    assert not x.requires_grad
    assert x.isfinite().all()
    if batch.lengths is not None:
        assert x[1, ..., int(batch.lengths[1]) :].eq(0).all()
    assert x.min() >= model.bounds.low
    assert x.max() <= model.bounds.high
    if attack.limit is not None:
        assert delta.abs().max() <= attack.limit * (1 + 1e-4) + 1e-7
    assert torch.equal(result.succeeded, objective.succeeded(result.batch))
    torch.testing.assert_close(result.l2, delta.norm(dim=1))
    assert torch.equal(result.l0, (delta != 0).sum(dim=1))
    assert result.queries >= 1
    assert (result.gradients > 0) == attack.white_box
    assert result.seconds > 0

    assert torch.equal(batch.x, given)
    assert same(state_of(model), before)
    assert hook_count(model) == 0
    assert same(global_generators(), rngs)

    np.random.seed(5)  # noqa: NPY002
    again = attack(objective, batch, generator=seeded(1))
    assert torch.equal(again.batch.x, x)
    settings = attack.settings()
    assert settings["name"] == name
    assert json.loads(json.dumps(settings)) == settings


class Breaks(Identification):
    """Gives up in the middle."""

    left = 3

    def logits(self, batch):
        Breaks.left -= 1
        if Breaks.left < 0:
            raise RuntimeError("broken")
        return super().logits(batch)


@pytest.mark.parametrize(("name", "level"), CASES)
def test_a_system_that_breaks_is_left_as_found(tiny_model, hook_count, name, level):
    model, batch = world(tiny_model, level)
    Breaks.left = 1
    objective = Breaks(model, model.predict(batch))
    before, rngs = state_of(model), global_generators()
    with pytest.raises(RuntimeError, match="broken"):
        attack_of(name, level)(objective, batch, generator=seeded(1))
    assert same(state_of(model), before)
    assert same(global_generators(), rngs)
    assert hook_count(model) == 0


def test_a_setting_that_the_attack_lacks_is_an_error():
    with pytest.raises(AttackError, match="deepfool has no setting eps, expected only steps, cand"):
        make_attack("deepfool", eps=0.01)
    with pytest.raises(AttackError, match="pgd needs eps"):
        make_attack("pgd")


@pytest.mark.parametrize("name", ["pwa", "jsma", "one-pixel"])
def test_what_costs_queries_for_each_value_is_for_spectrograms(name):
    with pytest.raises(AttackError, match=f"{name} cannot work at level 'raw', expected input"):
        make_attack(name, eps=CHEAP[name].get("eps"))
