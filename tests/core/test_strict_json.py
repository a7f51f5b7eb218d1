from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nip_audio.core.strict_json import build_dataclass, load_json


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    notes: dict[str, str]


@dataclass(frozen=True)
class Outer:
    name: str | None
    count: int
    share: float
    parts: tuple[Inner, ...]
    values: NDArray[np.float64]


GOOD = {
    **{"name": None, "count": 3, "share": 1, "values": np.ones(2)},
    "parts": [{"kind": "a", "notes": {"x": "y"}}],
}

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_makes_what_fits():
    made = build_dataclass(Outer, GOOD)
    assert (made.name, made.count, made.share) == (None, 3, 1.0)
    assert made.parts == (Inner("a", {"x": "y"}),)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": 3}, "name is a int"),
        ({"count": True}, "count is a bool"),
        ({"count": 1.0}, "count is a float"),
        ({"share": True}, "share is a bool"),
        ({"share": float("inf")}, "share is not finite"),
        ({"share": 10**400}, "share is not finite"),
        ({"parts": {}}, "parts is a dict"),
        ({"parts": [{"kind": "c", "notes": {}}]}, "kind is a str"),
        ({"parts": [{"kind": [], "notes": {}}]}, "kind is a list"),
        ({"parts": [{"kind": "a", "notes": {"x": 1}}]}, "notes is a int"),
        ({"parts": [{"kind": "a"}]}, "expected exactly kind, notes"),
        ({"values": [1.0]}, "values is a list"),
        ({"more": 1}, "expected exactly name, count"),
    ],
)
def test_refuses_what_does_not(changes, match):
    with pytest.raises(ValueError, match=match):
        build_dataclass(Outer, {**GOOD, **changes})


@given(ANY_JSON)
def test_json_is_read_and_nothing_but_an_error_of_value_comes_of_making(value: Any):
    assert load_json(json.dumps(value)) == value
    with pytest.raises(ValueError, match="expected exactly"):
        build_dataclass(Inner, value)


@given(st.binary(max_size=60))
def test_bytes_are_json_or_a_value_error(data: bytes):
    try:
        load_json(data)
    except ValueError:
        return
    json.loads(data)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": 1, "a": 2}', "[" * 10**5, "9" * 5000])
def test_refuses_what_python_would_read(text):
    with pytest.raises(ValueError, match=r".+"):
        load_json(text)
