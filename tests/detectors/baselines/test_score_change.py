from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.core.nccr import NccrConfig
from nip_audio.core.noise import Noise
from nip_audio.detectors.baselines.score_change import ScoreChange


def test_change_by_hand(by_hand, item, generator):
    """The named class's score is 2 x₀ where x₀ > 0: it changes by twice the noise at x₀."""
    config = NccrConfig(
        ("act",), (Noise("gaussian", "raw", 0.01), Noise("uniform", "raw", 0.02)), draws=5
    )
    measure = ScoreChange(config)
    row = measure.measure(by_hand([[1.0, 0.0], [0.0, 1.0]]), item(0.5, 0.3), generator=generator)
    again = torch.Generator().manual_seed(0)
    gaussian = 0.01 * torch.randn(5, 2, generator=again)
    uniform = 0.02 * (torch.rand(5, 2, generator=again) * 2 - 1)
    expected = [float(2 * noise[:, 0].abs().mean()) for noise in (gaussian, uniform)]
    np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert measure.suspicion(row[None]) == pytest.approx([np.mean(expected)], rel=1e-4)
    assert measure.passes == 11


def test_layers_do_not_matter():
    noises = (Noise("gaussian", "raw", 0.01),)
    settings = [ScoreChange(NccrConfig((layer,), noises)).settings() for layer in ("a", "b")]
    assert settings[0] == settings[1]
