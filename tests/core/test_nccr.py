from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import (
    NccrConfig,
    change_rate,
    coverage_change,
    measure_nccr,
    nccr_scalar,
)
from nip_audio.core.noise import Noise, apply_noise, draw_noise
from nip_audio.errors import InputError, LayerNotFoundError
from tests.tolerance import assert_same_but_for_rounding, depth_of, rounding

BOUNDS = Bounds(-1.0, 1.0)
NOISES = (
    Noise("gaussian", "raw", 0.01),
    Noise("uniform", "raw", 0.02),
    Noise("gaussian", "input", 0.03),
    Noise("mask", "input", 0.2),
)
CONFIG = NccrConfig(layers=("frames.1", "frames.4", "embedding"), noises=NOISES, draws=3)


class Same(nn.Module):
    """Neurons are the input's own values, so that a change rate can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Identity()

    def forward(self, x, lengths=None):
        return self.act(x)


class BreaksOnSecondCall(Same):
    calls = 0

    def forward(self, x, lengths=None):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("broken")
        return super().forward(x)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def item() -> Batch:
    return Batch(torch.rand(1, 8000, generator=seeded(5)) - 0.5)


def test_change_rate_by_hand():
    clean = torch.tensor([3.0, 4.0])
    disturbed = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [3.0, 5.0]])
    torch.testing.assert_close(change_rate(clean, disturbed), torch.tensor([0.0, 1.0, 1.0, 0.2]))


def test_coverage_change_by_hand():
    """Scaled to [0, 1] the clean outputs are 0, .2, .4 and 1: two are above .25."""
    clean = torch.tensor([1.0, 2.0, 3.0, 6.0])
    disturbed = torch.tensor([[1.0, 2.0, 3.0, 6.0], [1.0, 2.3, 2.2, 6.0], [5.0, 5.0, 5.0, 5.0]])
    torch.testing.assert_close(coverage_change(clean, disturbed), torch.tensor([0.0, 0.5, 0.5]))


def test_coverage_change_does_not_see_gain_or_an_offset():
    clean, disturbed = torch.rand(2, 50, generator=seeded())
    moved = coverage_change(2 * clean + 1, 3 * disturbed - 4)
    torch.testing.assert_close(moved, coverage_change(clean, disturbed))


def test_scalar_of_flips_is_the_mean_share(tiny_model, item):
    config = NccrConfig(("frames.1",), NOISES[:1], 5)
    result = measure_nccr(tiny_model, item, config, generator=seeded())
    got = nccr_scalar(
        tiny_model, item, layer="frames.1", noise=NOISES[0], draws=5, norm="l0", generator=seeded()
    )
    assert result.flips.shape == result.changes.shape == (1, 5, 1)
    assert got == pytest.approx(float(result.flips.mean()))


def test_scalar_by_hand():
    """Noise drawn with the same seed, neurons equal to the input: ‖noise‖ / ‖x‖."""
    model = InstrumentedModel(Same(), bounds=Bounds(-100.0, 100.0)).eval()
    x = torch.tensor([[3.0, 4.0]])
    noise = Noise("gaussian", "raw", 0.5)
    got = nccr_scalar(model, Batch(x), layer="act", noise=noise, draws=6, generator=seeded())
    drawn = torch.randn(6, 2, generator=seeded())
    assert got == pytest.approx(float((0.5 * drawn).norm(dim=1).mean()) / 5.0, rel=rounding())


def test_vector_by_hand_through_the_real_layers(tiny_model, item):
    """The definition written out: draw, apply, run, compare; noises in order from one generator."""
    result = measure_nccr(tiny_model, item, CONFIG, generator=seeded())
    generator = seeded()
    expected = []
    with torch.no_grad(), tiny_model.tap(*CONFIG.layers) as tap:
        clean_input = tiny_model.to_input(item)
        tiny_model.embed_input(clean_input)
        clean = {layer: neuron_outputs(tap[layer])[0] for layer in CONFIG.layers}
        for noise in NOISES:
            raw = noise.level == "raw"
            source = item if raw else clean_input
            drawn = draw_noise(noise, (3, *source.x.shape[1:]), generator=generator)
            bounds = tiny_model.bounds if raw else tiny_model.input_bounds
            x = Batch(apply_noise(noise, source.x, drawn, bounds))
            tiny_model.embed_input(tiny_model.to_input(x) if raw else x)
            for layer in CONFIG.layers:
                change = (neuron_outputs(tap[layer]) - clean[layer]).norm(dim=1)
                expected.append((change / clean[layer].norm()).mean())
    expected = torch.stack(expected)
    assert_same_but_for_rounding(result.vector, expected, depth=depth_of(tiny_model))
    assert len(CONFIG.names) == len(result.vector) == 12
    assert CONFIG.names[0] == "gaussian@raw 0.01 | frames.1"


def test_result_has_the_promised_shapes_and_clean_embedding(tiny_model, item):
    result = measure_nccr(tiny_model, item, CONFIG, generator=seeded())
    assert result.changes.shape == (4, 3, 3)
    assert result.draw_embeddings.shape == (4, 3, 6)
    assert (result.changes > 0).all()
    torch.testing.assert_close(result.embedding, tiny_model.embed(item)[0].detach())
    assert not result.changes.requires_grad


def test_same_generator_same_result_and_the_global_one_untouched(tiny_model, item):
    before = torch.get_rng_state()
    first = measure_nccr(tiny_model, item, CONFIG, generator=seeded(1))
    torch.manual_seed(123)
    second = measure_nccr(tiny_model, item, CONFIG, generator=seeded(1))
    other = measure_nccr(tiny_model, item, CONFIG, generator=seeded(2))
    assert torch.equal(first.changes, second.changes)
    assert not torch.allclose(first.changes, other.changes)
    torch.set_rng_state(before)
    measure_nccr(tiny_model, item, CONFIG, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("chunk_positions", [1, 51, 110])
def test_chunking_does_not_change_the_result(tiny_model, item, chunk_positions):
    whole = measure_nccr(tiny_model, item, CONFIG, generator=seeded())
    parts = measure_nccr(
        tiny_model, item, CONFIG, generator=seeded(), chunk_positions=chunk_positions
    )
    depth = depth_of(tiny_model)
    assert_same_but_for_rounding(parts.changes, whole.changes, depth=depth)
    assert_same_but_for_rounding(parts.draw_embeddings, whole.draw_embeddings, depth=depth)


def test_a_head_does_not_matter(tiny_model, embedding_model, item):
    with_head = measure_nccr(tiny_model, item, CONFIG, generator=seeded())
    without = measure_nccr(embedding_model, item, CONFIG, generator=seeded())
    assert torch.equal(with_head.changes, without.changes)


def test_model_and_item_are_left_as_they_were(tiny_model, item, hook_count):
    state = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    x = item.x.clone()
    measure_nccr(tiny_model, item, CONFIG, generator=seeded())
    assert all(torch.equal(v, state[k]) for k, v in tiny_model.state_dict().items())
    assert torch.equal(item.x, x)
    assert hook_count(tiny_model) == 0


def test_no_hook_is_left_after_an_error(hook_count):
    model = InstrumentedModel(BreaksOnSecondCall(), bounds=BOUNDS).eval()
    config = NccrConfig(("act",), (Noise("uniform", "raw", 0.1),))
    with pytest.raises(RuntimeError, match="broken"):
        measure_nccr(model, Batch(torch.ones(1, 4)), config, generator=seeded())
    assert hook_count(model) == 0


@pytest.mark.parametrize(
    "batch", [Batch(torch.ones(2, 4)), Batch(torch.ones(1, 4), torch.tensor([3]))]
)
def test_more_than_one_item_or_padding_is_an_error(batch):
    model = InstrumentedModel(Same(), bounds=BOUNDS)
    config = NccrConfig(("act",), (Noise("uniform", "raw", 0.1),))
    with pytest.raises(InputError, match=r"expected one item without padding; use Batch.item\(i\)"):
        measure_nccr(model, batch, config, generator=seeded())


def test_unknown_layer_lists_near_names(tiny_model, item):
    config = NccrConfig(("frames.9",), (Noise("uniform", "raw", 0.1),))
    with pytest.raises(LayerNotFoundError, match="'frames.9' does not exist"):
        measure_nccr(tiny_model, item, config, generator=seeded())


@pytest.mark.parametrize(
    ("noise", "bounds"),
    [
        (Noise("gaussian", "raw", 5.0), BOUNDS),
        (Noise("uniform", "raw", 5.0), BOUNDS),
        (Noise("mask", "input", 0.5), Bounds(0.0, 1.0)),
    ],
)
def test_disturbed_input_keeps_to_the_bounds_and_the_clean_one_is_untouched(noise, bounds):
    x = torch.full((1, 8, 20), 0.7)
    drawn = draw_noise(noise, (5, 8, 20), generator=seeded())
    got = apply_noise(noise, x, drawn, bounds)
    assert got.shape == (5, 8, 20)
    assert got.min() == bounds.low
    assert got.max() <= bounds.high
    assert x.eq(0.7).all()


def test_applying_is_a_plain_function_of_what_was_drawn():
    x = torch.zeros(1, 3)
    drawn = torch.tensor([[1.0, -0.5, 0.25]])
    noise = Noise("uniform", "raw", 0.2)
    expected = torch.tensor([[0.2, -0.1, 0.05]])
    torch.testing.assert_close(apply_noise(noise, x, drawn, BOUNDS), expected)
    mask = apply_noise(Noise("mask", "input", 0.5), x + 0.5, drawn > 0, BOUNDS)
    assert mask.tolist() == [[-1.0, 0.5, -1.0]]


def test_float64_input_stays_float64():
    x = torch.zeros(1, 3, dtype=torch.float64)
    for noise, drawn in ((NOISES[0], torch.ones(2, 3)), (NOISES[3], torch.ones(2, 3) > 0)):
        assert apply_noise(noise, x, drawn, BOUNDS).dtype == torch.float64


def test_drawn_noise_has_the_family_and_the_size_it_says():
    gaussian = draw_noise(NOISES[0], (2, 50_000), generator=seeded())
    assert gaussian.std() == pytest.approx(1.0, abs=0.02)
    uniform = draw_noise(NOISES[1], (2, 50_000), generator=seeded())
    assert uniform.abs().max() <= 1.0
    assert uniform.std() == pytest.approx(3**-0.5, abs=0.02)


@pytest.mark.parametrize("shape", [(4, 4000), (2, 200, 200), (2, 2, 150, 150)])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_mask_covers_about_the_share_asked_for(shape, share):
    noise = Noise("mask", "input", share, patch=4)
    mask = draw_noise(noise, shape, generator=seeded())
    assert (mask.shape, mask.dtype) == (shape, torch.bool)
    assert mask.float().mean() == pytest.approx(share, abs=0.04)


def test_mask_without_a_lower_bound_is_an_error_not_infinities():
    noise = Noise("mask", "input", 0.5)
    with pytest.raises(InputError, match="lower bound is -inf, a mask needs a finite one"):
        apply_noise(noise, torch.zeros(1, 3), torch.ones(2, 3) > 0, Bounds(-torch.inf, 1.0))


def test_mask_is_made_of_whole_patches():
    mask = draw_noise(Noise("mask", "input", 0.5, patch=7), (1, 30, 700), generator=seeded())[0]
    for axis in (0, 1):
        edges = mask.int().diff(dim=axis).nonzero()[:, axis]
        assert len(set((edges % 7).tolist())) == 1


@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (3, 1, 2)])
def test_mask_of_an_item_smaller_than_a_patch(shape):
    mask = draw_noise(Noise("mask", "input", 0.5, patch=8), shape, generator=seeded())
    assert mask.shape == shape


@pytest.mark.parametrize("shape", [(12, 20), (3, 12, 20)])
def test_outliers_become_the_median_around_them_and_nothing_else_changes(shape):
    smooth = torch.linspace(0.2, 0.8, 20).expand(shape).clone()[None]
    struck = smooth.clone()
    struck[..., 5, 7] = 1.0  # stands out by .6
    struck[..., 9, 3] += 0.1  # and by .1
    noise = Noise("outlier", "input", 0.3, patch=3)
    drawn = draw_noise(noise, (6, *shape), generator=seeded())
    got = apply_noise(noise, struck, drawn, Bounds(0.0, 1.0))
    changed = (got != struck).expand(6, *shape)
    assert changed[..., 5, 7].all()
    assert changed.sum() == changed[..., 5, 7].numel()
    assert (got[..., 5, 7] - smooth[..., 5, 7]).abs().max() < 0.05


def test_how_far_an_outlier_stands_out_is_drawn_anew():
    noise = Noise("outlier", "input", 0.2, patch=3)
    x = torch.zeros(1, 9, 9)
    x[0, 4, 4] = 0.2
    drawn = draw_noise(noise, (400, 9, 9), generator=seeded())
    assert drawn.shape == (400, 9, 9)
    assert 0.5 <= drawn.min() < drawn.max() <= 1.5
    replaced = apply_noise(noise, x, drawn, Bounds(0.0, 1.0))[:, 4, 4] == 0
    assert replaced.float().mean() == pytest.approx(0.5, abs=0.1)


def test_outliers_of_the_edges_are_seen_and_one_axis_has_none():
    noise = Noise("outlier", "input", 0.2, patch=5)
    x = torch.zeros(1, 4, 3)
    x[0, 0, 0] = 1.0
    drawn = draw_noise(noise, (2, 4, 3), generator=seeded())
    assert torch.equal(apply_noise(noise, x, drawn, BOUNDS), torch.zeros(2, 4, 3))
    with pytest.raises(InputError, match="outlier noise needs two axes"):
        apply_noise(noise, torch.zeros(1, 9), torch.ones(2, 9), BOUNDS)


def test_config_survives_json():
    assert NccrConfig.from_json(json.loads(json.dumps(CONFIG.to_json()))) == CONFIG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pink", "raw", 0.1), "noise is 'pink' at level 'raw'"),
        (("gaussian", "mel", 0.1), "at level 'mel'"),
        (("gaussian", "raw", 0.0), "has scale 0.0"),
        (("gaussian", "raw", float("nan")), "has scale nan"),
        (("mask", "input", 1.0), "below 1 for a mask"),
        (("mask", "input", 0.5, 0), "patch 0"),
        (("mask", "raw", 0.5), "is at level 'raw', expected 'input'"),
        (("outlier", "raw", 0.5, 3), "is at level 'raw', expected 'input'"),
        (("outlier", "input", 0.5, 4), "is 4, expected an odd side"),
        (("outlier", "input", 0.5, 1), "is 1, expected an odd side"),
    ],
)
def test_senseless_noise_is_an_error(arguments, message):
    with pytest.raises(InputError, match=message):
        Noise(*arguments)


@pytest.mark.parametrize(
    "parts", [((), NOISES, 1), (("a",), (), 1), (("a",), NOISES, 0)], ids=["layer", "noise", "draw"]
)
def test_empty_config_is_an_error(parts):
    with pytest.raises(InputError, match="NCCR needs at least one of each"):
        NccrConfig(*parts)


def test_single_values_are_masked_with_a_patch_of_one():
    mask = draw_noise(Noise("mask", "input", 0.25, patch=1), (1, 50, 50), generator=seeded())
    alone = mask[0, 1:-1, 1:-1] & ~mask[0, :-2, 1:-1] & ~mask[0, 1:-1, :-2]
    assert alone.any()
    assert 0.2 < mask.float().mean() < 0.3


def test_settings_with_a_tolerance_of_an_earlier_version_are_refused():
    with pytest.raises(InputError, match=r"tolerance of 0\.1, expected .*calibrate again"):
        NccrConfig.from_json(CONFIG.to_json() | {"tolerance": 0.1})
