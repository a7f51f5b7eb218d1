from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import InputError
from nip_audio.purifiers.anti_adversary import AntiAdversary
from nip_audio.purifiers.defending import DefendedModel

SPECTROGRAM = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_steps_towards_the_predicted_class(rows_model):
    """The model names the louder of two rows: the louder rises, the other falls."""
    x = torch.tensor([[[0.5, 0.5, 0.5], [0.4, 0.4, 0.4], [0.3, 0.3, 0.3]]])
    layer = AntiAdversary(model=rows_model, steps=2, step=0.05, bounds=SPECTROGRAM)
    out = layer.purify(Batch(x), generator=seeded()).x
    expected = torch.tensor([[[0.6] * 3, [0.3] * 3, [0.3] * 3]])
    torch.testing.assert_close(out, expected)


def test_it_confirms_the_answer_and_stays_in_bounds(rows_model):
    x = torch.rand(20, 4, 6, generator=seeded())
    layer = AntiAdversary(model=rows_model, steps=5, step=0.1, bounds=SPECTROGRAM)
    out = layer.purify(Batch(x), generator=seeded()).x
    before, after = (rows_model.embed_input(Batch(v)) for v in (x, out))
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))
    margin = before.diff(dim=1).abs()
    assert (after.diff(dim=1).abs() > margin).all()


def test_it_leaves_the_model_as_it_was(rows_model):
    rows_model.train()
    layer = AntiAdversary(model=rows_model, bounds=SPECTROGRAM)
    layer.purify(Batch(torch.rand(1, 4, 6)), generator=seeded())
    assert all(module.training for module in rows_model.modules())
    assert all(p.requires_grad and p.grad is None for p in rows_model.parameters())


def test_it_works_in_front_of_the_model_whose_gradient_is_attacked(tiny_model):
    layer = AntiAdversary(model=tiny_model, step=1e-3, bounds=SPECTROGRAM)
    defended = DefendedModel(tiny_model, layer, generator=seeded())
    x = (0.1 * torch.randn(2, 4000, generator=seeded(2))).requires_grad_(True)
    batch = Batch(x, torch.tensor([4000, 3000]))
    scores = defended.scores(batch)
    (gradient,) = torch.autograd.grad(scores.max(dim=1).values.sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        plain = tiny_model.scores(batch)
        torch.testing.assert_close(defended.scores(batch), scores)
    sure, sure_before = (tiny_model.logits(s).softmax(dim=1).amax(dim=1) for s in (scores, plain))
    assert (sure > sure_before).all()


def test_a_model_without_classes_has_nothing_to_be_sure_of(embedding_model):
    with pytest.raises(InputError, match="only embeds, expected one that predicts classes"):
        AntiAdversary(model=embedding_model, bounds=SPECTROGRAM)


@pytest.mark.parametrize(("setting", "value"), [("steps", 0), ("step", 0.0), ("step", "small")])
def test_senseless_settings_are_errors(rows_model, setting, value):
    with pytest.raises(InputError, match=f"{setting} is {value!r}, expected"):
        AntiAdversary(model=rows_model, bounds=SPECTROGRAM, **{setting: value})
