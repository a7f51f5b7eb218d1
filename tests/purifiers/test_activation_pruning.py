from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from nip_audio.attacks.end_to_end import EndToEndPgd
from nip_audio.attacks.objectives import Identification
from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.purifiers.activation_pruning import ActivationPruning, pruning_weights
from nip_audio.purifiers.defending import defend


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_factors_by_hand():
    """Three draws from p = (1/4, 3/4): kept with probability 37/64 and 63/64."""
    h = torch.tensor([[1.0, -3.0, 0.0]], dtype=torch.float64).expand(2000, 3)
    weights = pruning_weights(h, None, share=1.0, generator=seeded())
    kept = weights > 0
    assert weights[:, 0].unique().tolist() == pytest.approx([0, 64 / 37])
    assert weights[:, 1].unique().tolist() == pytest.approx([0, 64 / 63])
    assert not kept[:, 2].any()
    assert kept.double().mean(dim=0).tolist() == pytest.approx([37 / 64, 63 / 64, 0], abs=0.03)


def test_the_mean_over_draws_is_the_layers_own_output():
    h = torch.randn(1, 4, 5, generator=seeded(1)).expand(4000, 4, 5)
    mean = (h * pruning_weights(h, None, share=0.5, generator=seeded())).mean(dim=0)
    torch.testing.assert_close(mean, h[0], atol=0.15, rtol=0)


def test_share_is_of_the_valid_activations_and_padding_is_never_drawn():
    h = torch.ones(2, 10, 100)
    lengths = torch.tensor([100, 20])
    h[1, :, 20:] = 1000.0
    weights = pruning_weights(h, lengths, share=0.1, generator=seeded())
    assert not weights[1, :, 20:].any()
    # r draws from n equal ones leave n·(1 − (1 − 1/n)^r) of them
    for row, size in ((0, 1000), (1, 200)):
        expected = size * (1 - (1 - 1 / size) ** (0.1 * size))
        kept = weights[row] > 0
        assert int(kept.sum()) == pytest.approx(expected, rel=0.15)
        assert weights[row][kept].unique().tolist() == pytest.approx([size / expected], rel=1e-4)


def test_many_draws_keep_everything_and_silence_stays_silent():
    h = 1 + torch.rand(1, 50, generator=seeded(2))
    weights = pruning_weights(h, None, share=10.0, generator=seeded())
    assert (weights > 0).float().mean() > 0.98
    assert weights.max() < 1.01
    silent = pruning_weights(torch.zeros(1, 8), None, share=1.0, generator=seeded())
    assert silent.isfinite().all()


def test_factors_are_constants_in_the_backward_pass(tiny_model):
    """Averaged over draws, the gradient is that of the undefended layer, as EOT wants it."""
    x = torch.rand(1, 40, 40, generator=seeded(4)).requires_grad_(True)
    head = torch.randn(6, generator=seeded(5))

    def gradient(model) -> torch.Tensor:
        (found,) = torch.autograd.grad((model.embed_input(Batch(x)) @ head).sum(), x)
        return found

    # the last layer: behind it the objective is linear, so the mean gradient is exact
    defended = defend(tiny_model, ActivationPruning(layers=["embedding"]), generator=seeded())
    mean = torch.stack([gradient(defended) for _ in range(600)]).mean(dim=0)
    plain = gradient(tiny_model)
    assert torch.nn.functional.cosine_similarity(mean.flatten(), plain.flatten(), dim=0) > 0.98
    assert float(mean.norm() / plain.norm()) == pytest.approx(1.0, abs=0.1)


def test_draws_differ_and_an_attack_with_expectation_goes_through(tiny_model):
    defended = defend(tiny_model, ActivationPruning(layers=["frames.4"]), generator=seeded())
    features = Batch(torch.rand(2, 40, 40, generator=seeded(6)))
    assert not torch.equal(defended.embed_input(features), defended.embed_input(features))
    label = torch.tensor([0, 1])
    objective = Identification(defended.without_front_end(), label)
    attack = EndToEndPgd(eps=0.1, steps=6, restarts=1, draws=8)
    attacked = attack(objective, features, generator=seeded(1)).batch

    @torch.no_grad()
    def loss(batch: Batch) -> float:
        losses = [cross_entropy(objective.logits(batch), label) for _ in range(50)]
        return float(torch.stack(losses).mean())

    assert loss(attacked) > loss(features) + 1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"layers": ["pool"], "share": 0.0}, "share is 0.0, expected 0.01 to 10"),
        ({"layers": ["pool"], "share": float("nan")}, "share is nan"),
        ({}, "expected a list of at least one name; pass for instance the default"),
        ({"layers": "pool"}, "layers is 'pool', expected a list"),
    ],
)
def test_senseless_settings_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        ActivationPruning(**settings)


def test_tables_and_results_tell_settings_apart():
    one = ActivationPruning(layers=["pool"])
    other = ActivationPruning(layers=["layers.0", "pool"], share=0.5)
    assert (one.name, other.name) == ("SAP 100% pool", "SAP 50% 2 layers")
    assert other.settings() == {"name": "sap", "share": 0.5, "layers": ["layers.0", "pool"]}
    assert one.seen == frozenset()
