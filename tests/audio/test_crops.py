from __future__ import annotations

import pytest
import torch

from nip_audio.audio.crops import cut
from nip_audio.audio.io import Audio, read_audio
from nip_audio.errors import InputError


@pytest.fixture
def audio(write_sound) -> Audio:
    return read_audio(write_sound())  # one second


def test_crops_are_consecutive_and_the_rest_is_dropped(audio):
    crops = cut(audio, 0.3)
    assert [len(c) for c in crops] == [4800] * 3
    assert torch.equal(torch.cat(crops), audio.samples[:14400])


@pytest.mark.parametrize(("crop_s", "count"), [(None, 1), (1.0, 1), (0.5, 2), (1.01, 0)])
def test_whole_exact_and_too_short(audio, crop_s, count):
    assert len(cut(audio, crop_s)) == count


@pytest.mark.parametrize("crop_s", [0.0, -1.0, 1e-6])
def test_crop_without_a_sample_is_an_error(audio, crop_s):
    with pytest.raises(InputError, match="expected at least one sample; pass seconds"):
        cut(audio, crop_s)
