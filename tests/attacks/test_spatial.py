"""Rotations and translations: what moves where, what is kept, and that recordings are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.attacks.objectives import Identification
from nip_audio.attacks.registry import make_attack, names_at
from nip_audio.attacks.spatial import Spatial, rotate_and_move
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import AttackError

UNIT = Bounds(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class SeesTop(nn.Module):
    """Is class 0 as long as the upper half is the lighter one."""

    def forward(self, x, lengths=None):
        upper, lower = (half.mean(dim=(1, 2, 3)) for half in x.chunk(2, dim=2))
        return torch.stack([upper, lower], dim=1)


@pytest.fixture
def model() -> InstrumentedModel:
    return InstrumentedModel(SeesTop(), head=nn.Identity(), bounds=UNIT).eval()


def dot(row: int, column: int, *, rows: int = 9, columns: int = 9) -> torch.Tensor:
    x = torch.zeros(1, 1, rows, columns)
    x[0, 0, row, column] = 1.0
    return x


def run(attack: Spatial, model: InstrumentedModel, x: torch.Tensor):
    batch = Batch(x)
    objective = Identification(model, torch.zeros(len(x), dtype=torch.long))
    return attack(objective, batch, generator=seeded())


@pytest.mark.parametrize("shape", [(9, 9), (9, 15)])
def test_a_quarter_turn_goes_anticlockwise_whatever_the_sides(shape):
    rows, columns = shape
    x = dot(4, columns // 2 + 3, rows=rows, columns=columns)  # three to the right of the centre
    turned = rotate_and_move(x, degrees=90, down=0, right=0, bounds=UNIT)
    expected = dot(1, columns // 2, rows=rows, columns=columns)  # three above it
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_it_turns_first_and_moves_then():
    moved = rotate_and_move(dot(4, 7), degrees=90, down=2, right=-1, bounds=UNIT)
    torch.testing.assert_close(moved, dot(3, 3), atol=1e-5, rtol=0)


def test_what_comes_in_is_the_lower_bound():
    x = torch.full((1, 1, 4, 4), 0.5)
    moved = rotate_and_move(x, degrees=0, down=1, right=0, bounds=Bounds(-1.0, 1.0))
    assert moved[0, 0, :, 0].tolist() == pytest.approx([-1.0, 0.5, 0.5, 0.5])


def test_least_is_the_least_and_worst_fools_most(model):
    bar = torch.zeros(1, 1, 12, 12)
    bar[..., 4, :] = 1.0  # two rows further down it is in the lower half
    least = run(Spatial(degrees=0, rotations=1, pixels=3, translations=7, keep="least"), model, bar)
    assert least.succeeded.tolist() == [True]
    torch.testing.assert_close(least.batch.x[0, 0, 6], torch.ones(12), atol=1e-5, rtol=0)
    bar[..., 2, :] = 0.9  # three down, its fainter part is still in the upper half
    worst = run(Spatial(degrees=0, rotations=1, pixels=3, translations=7), model, bar)
    expected = run(Spatial(degrees=0, rotations=1, pixels=4, translations=9), model, bar)
    margins = [float((m := model.scores(r.batch))[0, 1] - m[0, 0]) for r in (worst, expected)]
    assert margins[0] < margins[1]  # a larger grid finds worse
    assert worst.queries == 1 + 48  # the picture itself, and all of the grid but standing still
    assert worst.gradients == 0


def test_what_nothing_fools_and_what_is_misnamed_already_stay_as_they_are(model):
    light = torch.zeros(2, 1, 12, 12)
    light[0, :, :6] = 1.0  # no translation by one pixel makes the lower half lighter
    light[1, :, 6:] = 1.0
    result = run(Spatial(degrees=0, rotations=1, pixels=1, translations=3), model, light)
    assert torch.equal(result.batch.x, light)
    assert result.succeeded.tolist() == [False, True]


def test_a_target_is_reached(model):
    bar = torch.zeros(1, 1, 12, 12)
    bar[..., 4, :] = 1.0
    batch, target = Batch(bar), torch.ones(1, dtype=torch.long)
    attack = Spatial(degrees=0, rotations=1, translations=7)
    result = attack(Identification(model, target, targeted=True), batch, generator=seeded())
    assert result.succeeded.tolist() == [True]


def test_recordings_are_refused(tiny_model):
    assert "spatial" not in names_at("input")
    assert "spatial" in names_at("input", images=True)
    with pytest.raises(AttackError, match="spatial is for images only, .* choose one of fgsm"):
        make_attack("spatial")
    model = tiny_model.without_front_end()
    batch = Batch(torch.rand(1, 40, 50, generator=seeded()))
    with pytest.raises(AttackError, match=r"shape \(1, 40, 50\), expected images .* rotated"):
        Spatial()(Identification(model, model.predict(batch)), batch, generator=seeded())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"degrees": 200.0}, "degrees is 200"),
        ({"pixels": -1.0}, "pixels -1"),
        ({"rotations": 1, "translations": 1}, "not 1 of both"),
        ({"keep": "first"}, "keep is 'first'"),
    ],
)
def test_senseless_settings_are_errors(settings, match):
    with pytest.raises(AttackError, match=match):
        Spatial(**settings)
