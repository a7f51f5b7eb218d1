from __future__ import annotations

import pytest

from nip_audio.models.modalities import MODALITIES


@pytest.mark.parametrize(
    ("modality", "taps", "changes", "outputs"),
    [
        ("audio", ("a", "b", "c"), ("a", "b"), ("a", "b")),
        ("image", ("a", "b", "c", "pool"), ("c",), ("b",)),
        ("image", ("a", "pool"), ("a",), ("a",)),
        ("image", ("pool",), ("pool",), ("pool",)),
    ],
)
def test_layers_are_chosen_among_the_taps_however_few(modality, taps, changes, outputs):
    assert MODALITIES[modality].trigger_plan.layers(taps) == (changes, outputs)
