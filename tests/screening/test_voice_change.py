"""Where the voice of a recording changes, by a model that tells two constant voices apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nip_audio.screening.sounds import voice_change

RATE_HZ = 400  # a window is a second, whatever the rate


class Signs(nn.Module):
    """Embeds samples by how many are positive and how many negative."""

    def embed(self, batch):
        x = batch.x
        return torch.stack([(x > 0).float().mean(dim=1), (x < 0).float().mean(dim=1)], dim=1)


def spoken(*parts_s: float) -> torch.Tensor:
    """Return voices that take turns, the first one first."""
    signs = np.resize([0.1, -0.1], len(parts_s))
    parts = [np.full(round(s * RATE_HZ), sign) for s, sign in zip(parts_s, signs, strict=True)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def found(samples: torch.Tensor, speech: np.ndarray | None = None):
    speech = np.ones(len(samples), dtype=bool) if speech is None else speech
    return voice_change(Signs(), samples, RATE_HZ, speech)


@pytest.mark.parametrize("parts_s", [(3.0, 3.0), (5.0, 2.5), (2.5, 5.0), (1.5, 1.5), (40.0, 3.0)])
def test_the_place_where_one_voice_follows_another_is_found(parts_s):
    cosine, change_s = found(spoken(*parts_s))
    assert cosine == pytest.approx(0.0, abs=1e-6)
    assert change_s == pytest.approx(parts_s[0], abs=0.25)


def test_one_voice_is_one_voice():
    cosine, _ = found(spoken(6.0))
    assert cosine == pytest.approx(1.0)


def test_a_short_second_voice_is_diluted_by_the_least_length_of_a_part():
    cosines = [found(spoken(6.0, second_s))[0] for second_s in (0.5, 1.0, 2.0, 2.5)]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.9
    assert cosines[-1] == pytest.approx(0.0, abs=1e-6)


def test_the_place_counts_what_is_no_speech():
    pause = torch.zeros(2 * RATE_HZ)
    samples = torch.cat([spoken(3.0), pause, -spoken(3.0)])
    _, change_s = found(samples, (samples != 0).numpy())
    assert change_s == pytest.approx(5.0, abs=0.25)


@pytest.mark.parametrize(("seconds", "known"), [(1.9, False), (2.0, True)])
def test_little_speech_has_no_two_parts(seconds, known):
    cosine, change_s = found(spoken(seconds))
    assert (cosine is not None) == (change_s is not None) == known
