from __future__ import annotations

import pytest
import torch

from nip_audio.errors import InputError
from nip_audio.speechbrain import babble_like


def test_babble_is_the_sum_of_other_items_rotated_in_time():
    # item i is 10^i everywhere: rotation does not show, membership does
    waveforms = (10.0 ** torch.arange(5))[:, None].expand(5, 7).contiguous()
    got = babble_like(waveforms, speaker_count=2)
    assert got[:, 0].tolist() == [11000.0, 10001.0, 11.0, 110.0, 1100.0]
    assert got.eq(got[:, :1]).all()


def test_rotation_follows_the_global_generator_and_keeps_the_samples():
    waveforms = torch.arange(12.0).reshape(2, 6)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    first = babble_like(waveforms, speaker_count=1)
    torch.manual_seed(0)
    assert torch.equal(babble_like(waveforms, speaker_count=1), first)
    torch.set_rng_state(state)
    assert torch.equal(first.sort(dim=1).values, waveforms.flip(0))


def test_too_small_a_batch_is_an_error():
    with pytest.raises(InputError, match="batch has 3 items, expected more than 3"):
        babble_like(torch.zeros(3, 8))
