"""Triggers on images."""

from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from studies.backdoors.image_triggers import IMAGE_TRIGGERS, Patch


@pytest.mark.parametrize("name", sorted(IMAGE_TRIGGERS))
def test_a_trigger_is_the_same_on_all_and_keeps_to_the_bounds(name):
    x = 0.5 * torch.ones(4, 3, 32, 32)
    before = x.clone()
    out = IMAGE_TRIGGERS[name]()(x)
    assert out.shape == x.shape
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert torch.equal(x, before)
    assert float((out - x).abs().max()) > 0.02
    torch.testing.assert_close(out[0], out[3])
    torch.testing.assert_close(IMAGE_TRIGGERS[name]()(x), out)


def test_the_patch_is_where_it_says():
    out = Patch(side=2)(torch.zeros(1, 1, 6, 6))
    assert out.sum() == 4
    assert bool((out[0, 0, -2:, -2:] == 1).all())


def test_waveforms_are_refused():
    with pytest.raises(InputError, match="items, channels, rows"):
        Patch()(torch.zeros(2, 100))
