from __future__ import annotations

import dataclasses

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, LayerNotFoundError, ResumeError
from nip_audio.purifiers.guided_training import GuidedSettings, train_guided
from nip_audio.purifiers.training_attacks import FAMILIES, ModelUnderAttack, attack_once

LAYERS = ("frames.1", "embedding")
SHORT = GuidedSettings(steps=6, width=4)


def draw(generator: torch.Generator) -> Batch:
    """Eight noisy tones of 0.15 s."""
    time_s = torch.arange(2400) / 16000
    pitch = 200 + 800 * torch.rand(8, 1, generator=generator)
    noise = torch.randn(8, 2400, generator=generator)
    return Batch(0.2 * torch.sin(2 * torch.pi * pitch * time_s) + 0.002 * noise)


def train(model: InstrumentedModel, settings: GuidedSettings = SHORT, **options):
    options = {"layers": LAYERS, "model_id": "m"} | options
    return train_guided(model, draw, settings, **options)


def weights_of(purifier) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in purifier.net.parameters()])


@pytest.fixture(autouse=True)
def frozen(tiny_model, embedding_model):
    for model in (tiny_model, embedding_model):
        model.requires_grad_(False)


def test_it_brings_neurons_back(tiny_model):
    """On audio and attacks of a seed it was not trained with."""
    settings = GuidedSettings(
        steps=80, width=8, raw_share=0.0, eps_input=(0.02, 0.02), families=("gradient",), lr=5e-3
    )
    losses: list[float] = []
    purifier = train(tiny_model, settings, progress=lambda step, loss, kept: losses.append(loss))
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])

    rng = torch.Generator().manual_seed(99)
    clean = tiny_model.to_input(draw(rng))
    truth = tiny_model.embed_input(clean)
    named = tiny_model.score_embeddings(truth).argmax(dim=1)
    victim = ModelUnderAttack(tiny_model.without_front_end(), clean, truth, named)
    x = attack_once(victim, "gradient", torch.full((8,), 0.02), by_class=True, generator=rng)
    attacked = clean.with_x(x)

    def loss(batch: Batch) -> float:
        return float(victim.loss(batch.x, by_class=True).mean())

    assert loss(purifier.purify(attacked, generator=rng)) < 0.7 * loss(attacked)


@pytest.mark.parametrize(
    "change",
    [
        {"families": ("sparse",)},
        {"families": ("minimum", "decision"), "raw_share": 1.0},
        {"adaptive_share": 1.0, "noise": 0.02},
        {"adaptive_share": 1.0, "raw_share": 1.0},
        {"adaptive_share": 1.0, "raw_share": 1.0, "snr_db": 12.0},
        {"benign_share": 0.0},
    ],
    ids=str,
)
def test_every_kind_of_training_runs(tiny_model, change):
    purifier = train(tiny_model, dataclasses.replace(SHORT, steps=2, **change))
    assert weights_of(purifier).isfinite().all()


def test_without_a_head_the_embedding_is_the_target(embedding_model):
    losses = []
    train(embedding_model, progress=lambda step, loss, kept: losses.append((step, loss, kept)))
    assert [step for step, _, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert all(0 <= kept <= 1 for _, _, kept in losses)


@pytest.mark.parametrize(
    "lengths", [None, torch.tensor([2400, 2300, 2400, 2350, 2400, 2300, 2400, 2400])]
)
def test_an_attack_serves_several_steps(tiny_model, lengths, monkeypatch):
    """Of padded batches too; and no example is lost between the hands that it is dealt to."""
    attacked = []

    def count(victim, family, eps, **options):
        attacked.append(len(eps))
        return attack_once(victim, family, eps, **options)

    monkeypatch.setattr("nip_audio.purifiers.guided_training.attack_once", count)
    train_guided(
        tiny_model,
        lambda generator: Batch(draw(generator).x, lengths),
        dataclasses.replace(SHORT, steps=13, reuse=3),
        layers=LAYERS,
        model_id="m",
    )
    assert attacked == [8] * 8  # four batches for 12 steps, and four for the thirteenth


def test_the_model_is_left_alone(tiny_model, hook_count):
    before = [p.clone() for p in tiny_model.state_dict().values()]
    train(tiny_model)
    assert all(map(torch.equal, before, tiny_model.state_dict().values()))
    assert all(p.grad is None for p in tiny_model.parameters())
    assert hook_count(tiny_model) == 0


def test_the_seed_decides_and_nothing_else(tiny_model):
    torch.manual_seed(1)
    first = weights_of(train(tiny_model))
    torch.manual_seed(2)
    assert torch.equal(first, weights_of(train(tiny_model)))
    other = weights_of(train(tiny_model, dataclasses.replace(SHORT, seed=1)))
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("reuse", "kept"), [(1, 20), (3, 24)])  # at the end of a round
def test_interrupted_it_ends_where_it_would_have(tiny_model, tmp_path, reuse, kept):
    class Interruption(Exception):
        pass

    def stop(step: int, loss: float, kept: float) -> None:
        if step == 30:
            raise Interruption

    settings = dataclasses.replace(SHORT, steps=40, reuse=reuse)
    path = tmp_path / "p.partial"
    with pytest.raises(Interruption):
        train(tiny_model, settings, checkpoint=path, progress=stop)
    steps: list[int] = []
    resumed = train(
        tiny_model, settings, checkpoint=path, progress=lambda s, loss, kept: steps.append(s)
    )
    assert steps[0] == kept + 1
    assert torch.equal(weights_of(resumed), weights_of(train(tiny_model, settings)))


@pytest.mark.parametrize("options", [{"seen": ("x",)}, {"layers": ("embedding",)}])
def test_a_checkpoint_of_another_training_is_refused(tiny_model, tmp_path, options):
    path = tmp_path / "p.partial"
    train(tiny_model, checkpoint=path)
    with pytest.raises(ResumeError, match="delete it to start anew"):
        train(tiny_model, checkpoint=path, **options)


def test_what_it_saw_and_how_is_recorded(tiny_model):
    purifier = train(tiny_model, seen=("b", "a"))
    assert purifier.seen == {"a", "b"}
    assert purifier.training["steps"] == 6
    assert purifier.training["layers"] == list(LAYERS)


@pytest.mark.parametrize("layers", [("nothing",), ()])
def test_layers_that_are_not_there(tiny_model, layers):
    with pytest.raises((LayerNotFoundError, InputError), match=r"does not exist|no layers"):
        train(tiny_model, layers=layers)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"families": ("magic",)}, "expected at least one of"),
        ({"families": ()}, "expected at least one of"),
        ({"benign_share": 1.0}, "so that something is attacked"),
        ({"raw_share": 1.5}, "expected 0 to 1"),
        ({"snr_db": 12.0}, "would bypass the noise"),
        ({"steps": 0}, "expected ≥ 1"),
        ({"reuse": 0}, "expected ≥ 1"),
        ({"lr": 0.0}, "and > 0"),
        ({"eps_input": (1.0, 8.0)}, "weakest ≤ strongest"),
        ({"eps_raw": (0.01, 0.001)}, "weakest ≤ strongest"),
    ],
)
def test_senseless_settings_are_refused(change, text):
    with pytest.raises(InputError, match=text):
        GuidedSettings(**change)


def test_with_noise_in_raw_input_it_learns_to_take_the_noise_out(tiny_model):
    settings = GuidedSettings(
        steps=60, width=8, raw_share=1.0, eps_raw=(1e-4, 1e-4), snr_db=10.0, lr=5e-3
    )
    purifier = train(tiny_model, settings)
    rng = torch.Generator().manual_seed(99)
    raw = draw(rng)
    clean = tiny_model.to_input(raw)
    noisy = tiny_model.to_input(purifier.before.purify(raw, generator=rng))
    purified = purifier.purify(noisy, generator=rng)
    assert (purified.x - clean.x).square().mean() < 0.5 * (noisy.x - clean.x).square().mean()


def test_it_goes_on_from_another(tiny_model):
    first = train(tiny_model, dataclasses.replace(SHORT, steps=12), seen=("a",))
    second = train(
        tiny_model, dataclasses.replace(SHORT, steps=1, lr=1e-9), seen=("b",), start=first
    )
    assert torch.allclose(weights_of(second), weights_of(first), atol=1e-6)
    assert second.seen == {"a", "b"}
    assert second.training["start"]["weights"] == first.settings()["weights"]
    assert weights_of(first).equal(
        weights_of(train(tiny_model, dataclasses.replace(SHORT, steps=12)))
    )


def test_it_does_not_go_on_from_one_of_another_width(tiny_model):
    first = train(tiny_model, dataclasses.replace(SHORT, steps=1))
    with pytest.raises(InputError, match="give both the same"):
        train(tiny_model, dataclasses.replace(SHORT, width=8), start=first)


def test_by_default_every_family_is_trained_on():
    assert set(GuidedSettings().families) == set(FAMILIES)
