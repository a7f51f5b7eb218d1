"""Gated purification: what is not flagged passes bit for bit."""

from __future__ import annotations

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import InputError
from nip_audio.purifiers.defending import defend
from nip_audio.purifiers.gated import GatedPurifier
from nip_audio.purifiers.median_filter import MedianFilter
from nip_audio.purifiers.spatial_smoothing import SpatialSmoothing


class LoudGate:
    """Flags what is loud."""

    name = "loudness"
    seen = frozenset({"heard"})

    def settings(self):
        return {"name": "loudness"}

    def flags(self, raw):
        return raw.masked().abs().amax(dim=1) > 0.5


def batch() -> Batch:
    x = 0.3 * torch.randn(4, 8000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    x[1::2] *= 3
    return Batch(x.clamp(-1, 1), torch.tensor([8000, 8000, 6000, 7000]))


def gated(model, purifier):
    return defend(model, GatedPurifier(purifier, LoudGate()), generator=torch.Generator())


def purifiers(model):
    return [MedianFilter(bounds=model.bounds), SpatialSmoothing(bounds=model.input_bounds)]


@pytest.mark.parametrize("which", [0, 1], ids=["raw", "input"])
def test_only_what_is_flagged_is_purified(tiny_model, which):
    purifier = purifiers(tiny_model)[which]
    items = batch()
    items = items.with_x(items.masked())
    plain = tiny_model.to_input(items).x
    always = defend(tiny_model, purifier, generator=torch.Generator()).to_input(items).x
    flagged = LoudGate().flags(items)
    assert 0 < flagged.sum() < len(items)
    found = gated(tiny_model, purifier).to_input(items).x
    assert torch.equal(found[~flagged], plain[~flagged])
    assert torch.equal(found[flagged], always[flagged])
    assert not torch.equal(found, plain)


def test_the_purifier_is_not_asked_where_nothing_is_flagged(tiny_model, monkeypatch):
    purifier = MedianFilter(bounds=tiny_model.bounds)
    monkeypatch.setattr(purifier, "purify", None)  # whoever asks it fails
    quiet = Batch(0.1 * batch().x)
    found = gated(tiny_model, purifier).to_input(quiet).x
    assert torch.equal(found, tiny_model.to_input(quiet).x)


def test_gradients_flow_where_the_gate_is_shut_too(tiny_model):
    x = batch().x.requires_grad_(True)
    model = gated(tiny_model, SpatialSmoothing(bounds=tiny_model.input_bounds))
    model.scores(Batch(x)).sum().backward()
    assert (x.grad.abs().amax(dim=1) > 0).all()


def test_it_has_seen_what_either_has_seen(tiny_model):
    defence = GatedPurifier(MedianFilter(bounds=tiny_model.bounds), LoudGate())
    assert defence.seen == {"heard"}
    assert defence.settings()["gate"] == {"name": "loudness"}
    assert defence.name == "median 3, gated by loudness"


def test_behind_the_front_end_there_is_nothing_to_look_at(tiny_model):
    model = gated(tiny_model, SpatialSmoothing(bounds=tiny_model.input_bounds))
    with pytest.raises(InputError, match="bypasses; attack at level 'raw'"):
        model.without_front_end()
