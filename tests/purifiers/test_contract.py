"""What every purifier promises."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.purifiers.base import Purifier
from nip_audio.purifiers.registry import PURIFIERS, make_purifier

EVERY = pytest.mark.parametrize("name", PURIFIERS)

SMALL = {"tvm": {"steps": 20}, "anti-adversary": {"step": 0.05}}
OTHERS = {
    "noise": {"snr_db": 7.0},
    "quantization": {"bits": 5},
    "down-sampling": {"rate_hz": 4000},
    "random-crop": {"share": 0.5},
    "median": {"kernel": 5},
    "mp3": {"compression_level": 0.9},
    "vorbis": {"compression_level": 0.9},
    "opus": {"compression_level": 0.9},
    "spatial-smoothing": {"kernel": 2},
    "bit-depth": {"bits": 3},
    "tvm": {"steps": 20, "weight": 0.1},
    "jpeg": {"quality": 10},
    "bicubic": {"factor": 3},
    "feature-distillation": {"coarse_step": 60},
    "anti-adversary": {"steps": 1},
}
"""Settings that differ from the small ones and the defaults."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make(rows_model, patches, guided, pool) -> Callable[[str], Purifier]:
    """Make a purifier by name, with small settings."""

    def made(name: str) -> Purifier:
        fitted = {"patch-dictionary": patches, "guided": guided, "pool": pool}
        if name in fitted:
            return fitted[name]
        return make_purifier(name, model=rows_model, settings=SMALL.get(name))

    return made


@pytest.fixture
def example(spectrograms) -> Callable[..., Batch]:
    """Make two items of what a purifier takes, the second shorter where ``lengths`` are given."""

    def made(name: str, *, lengths: bool = True, dtype: torch.dtype = torch.float32) -> Batch:
        if PURIFIERS[name].level == "raw":
            time_s = torch.arange(3000, dtype=dtype) / 16000
            tones = torch.stack([torch.sin(2 * torch.pi * f * time_s) for f in (300.0, 440.0)])
            x = 0.3 * tones + 0.02 * torch.randn(2, 3000, generator=seeded(7)).to(dtype)
            return Batch(x, torch.tensor([3000, 2100]) if lengths else None)
        return Batch(spectrograms().to(dtype), torch.tensor([37, 23]) if lengths else None)

    return made


@EVERY
def test_keeps_shape_bounds_padding_and_input(make, example, name):
    purifier, batch = make(name), example(name)
    batch.x[1, ..., int(batch.lengths[1]) :] = 0.7  # what lies there must not matter
    given = batch.x.clone()
    out = purifier.purify(batch, generator=seeded(1))
    assert torch.equal(batch.x, given)
    assert out.x.shape == batch.x.shape
    assert torch.equal(out.lengths, batch.lengths)
    assert out.x.isfinite().all()
    assert out.x.min() >= purifier.bounds.low
    assert out.x.max() <= purifier.bounds.high
    assert out.x[1, ..., int(batch.lengths[1]) :].eq(0).all()
    assert not torch.equal(out.x, batch.masked())
    zeroed = batch.with_x(batch.masked())
    assert torch.equal(purifier.purify(zeroed, generator=seeded(1)).x, out.x)


@EVERY
@pytest.mark.parametrize("extreme", [-1.0, 0.0, 1.0])
def test_bounds_are_kept_at_the_extremes(make, example, name, extreme):
    purifier, batch = make(name), example(name)
    x = batch.x.clone().sub(batch.x.mean()).sign()  # full scale, up and down
    x[0] = extreme
    batch = batch.with_x(purifier.bounds.clip(x))
    out = purifier.purify(batch, generator=seeded())
    assert out.x.isfinite().all()
    assert out.x.min() >= purifier.bounds.low
    assert out.x.max() <= purifier.bounds.high


@EVERY
def test_a_batch_is_its_items(make, example, name):
    purifier, batch = make(name), example(name)
    if purifier.random:
        return
    out = purifier.purify(batch, generator=seeded())
    for index in range(2):
        alone = purifier.purify(batch.item(index), generator=seeded())
        torch.testing.assert_close(out.item(index).x, alone.x, rtol=1e-4, atol=1e-5)
    whole = Batch(batch.x)
    torch.testing.assert_close(
        purifier.purify(whole, generator=seeded()).x[1:],
        purifier.purify(whole.item(1), generator=seeded()).x,
        rtol=1e-4,
        atol=1e-5,
    )


@EVERY
def test_draws_from_the_generator_alone(make, example, name):
    purifier, batch = make(name), example(name)
    before = torch.get_rng_state()
    out = purifier.purify(batch, generator=seeded(1))
    assert torch.equal(out.x, purifier.purify(batch, generator=seeded(1)).x)
    other = purifier.purify(batch, generator=seeded(2))
    assert torch.equal(out.x, other.x) != purifier.random
    unused, fresh = seeded(5), seeded(5)
    purifier.purify(batch, generator=unused)
    assert torch.equal(unused.get_state(), fresh.get_state()) != purifier.random
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_is_differentiable_as_it_says(make, example, name):
    purifier, batch = make(name), example(name)
    x = batch.x.clone().requires_grad_(True)
    out = purifier.purify(batch.with_x(x), generator=seeded(1)).x
    if not purifier.differentiable:
        blind = not out.requires_grad
        assert blind or bool(torch.autograd.grad(out.sum(), x)[0].eq(0).all())
        return
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert gradient.isfinite().all()
    assert gradient[0].abs().sum() > 0
    assert gradient[1, ..., int(batch.lengths[1]) :].eq(0).all()
    with torch.no_grad():
        assert torch.equal(purifier.purify(batch, generator=seeded(1)).x, out)


@EVERY
def test_keeps_the_type(make, example, name):
    purifier = make(name)
    double = purifier.purify(example(name, dtype=torch.float64), generator=seeded(1)).x
    single = purifier.purify(example(name), generator=seeded(1)).x
    assert double.dtype == torch.float64
    assert single.dtype == torch.float32


@EVERY
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_takes_the_shortest_items(make, example, name, size):
    purifier, batch = make(name), example(name, lengths=False)
    short = Batch(batch.x[..., :size].clone())
    out = purifier.purify(short, generator=seeded())
    assert out.x.shape == short.x.shape
    assert out.x.isfinite().all()
    mixed = Batch(batch.x, torch.tensor([batch.x.shape[-1], size]))
    assert purifier.purify(mixed, generator=seeded()).x[1, ..., size:].eq(0).all()


@EVERY
def test_takes_silence(make, example, name):
    batch = example(name)
    out = make(name).purify(batch.with_x(torch.zeros_like(batch.x)), generator=seeded())
    assert out.x.abs().max() < 0.2


@pytest.mark.parametrize("name", [n for n, e in PURIFIERS.items() if e.level == "input"])
@pytest.mark.parametrize("channels", [1, 3])
def test_takes_images(make, spectrograms, name, channels):
    if name == "pool" or (channels > 1 and name == "guided"):
        return  # fitted to spectrograms as the model takes them
    x = torch.stack([spectrograms(seed=s) for s in range(channels)], dim=1)
    purifier = make(name)
    out = purifier.purify(Batch(x, torch.tensor([37, 20])), generator=seeded())
    assert out.x.shape == x.shape
    assert out.x[1, ..., 20:].eq(0).all()
    if channels == 1 and not purifier.random:
        flat = purifier.purify(Batch(x[:, 0], torch.tensor([37, 20])), generator=seeded())
        torch.testing.assert_close(out.x[:, 0], flat.x)


@pytest.mark.parametrize("name", OTHERS)
def test_settings_tell_purifiers_apart(make, rows_model, name):
    own = make(name)
    other = make_purifier(name, model=rows_model, settings={**SMALL.get(name, {}), **OTHERS[name]})
    assert json.loads(json.dumps(own.settings())) == own.settings()
    assert own.settings() != other.settings()
    assert own.name != other.name
    assert own.settings()["name"] == name


@EVERY
def test_says_what_it_is(make, name):
    purifier = make(name)
    assert 1 <= len(purifier.name) <= 30
    assert purifier.level == PURIFIERS[name].level
    json.dumps(purifier.settings(), allow_nan=False)
    assert list(inspect.signature(purifier.purify).parameters) == ["batch", "generator"]


def test_no_two_have_the_same_name_or_settings(make):
    made = [make(name) for name in PURIFIERS]
    assert len({p.name for p in made}) == len(made)
    assert len({json.dumps(p.settings(), sort_keys=True) for p in made}) == len(made)
