from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from nip_audio.core.fingerprint import fingerprint, weights_sha256
from nip_audio.errors import InputError

DIFFERENT = [
    *(None, True, 1, 1.0, "1", b"1", "", b""),
    *([], [1], [[1]], [1, [2]], [[1], 2], ["ab", "c"], ["a", "bc"]),
    *({}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": {"b": 1}}),
    *(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), torch.ones(2)),
]


def test_what_differs_has_different_fingerprints():
    found = [fingerprint(value) for value in DIFFERENT]
    assert all(a != b for a, b in combinations(found, 2))
    assert {len(one) for one in found} == {64}


def test_order_of_keys_layout_and_kind_of_sequence_do_not_matter():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    rows = torch.arange(6.0).reshape(2, 3)
    assert fingerprint(rows.T) == fingerprint(rows.T.contiguous()) == fingerprint(rows.numpy().T)


def test_it_stays_what_it_is():
    """Kept results are found again by a later version."""
    value = {"eps": 0.002, "steps": [1, None, True], "x": torch.arange(3, dtype=torch.float32)}
    assert fingerprint(value) == (
        "a6f9dcb977042f4e17e5b90422df1b269f17db38486c8eefcba31244acf3fda0"
    )


@pytest.mark.parametrize("value", [Path("a"), {1, 2}, object(), np.array([None])])
def test_what_has_no_settled_bytes_is_refused(value):
    with pytest.raises(InputError, match="has no fingerprint"):
        fingerprint({"a": [value]})


def test_networks_are_told_apart_by_weights_and_by_structure():
    one = torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert weights_sha256(one) == weights_sha256(other)
    with torch.no_grad():
        # the sum of absolute weights stays, the network does not
        other.weight.copy_(one.weight.flip(0))
    assert weights_sha256(one) != weights_sha256(other)
    assert weights_sha256(torch.nn.ReLU()) != weights_sha256(torch.nn.Tanh())
