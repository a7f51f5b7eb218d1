"""One rule for what identifies settings, data and networks: SHA-256 over all that matters.

A result that is kept, to be used again, is kept under the fingerprint of everything it depends on.
Code is not among that: whatever computes the result has a ``version``, which is raised when the
same inputs give another result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from nip_audio.errors import InputError

__all__ = ["fingerprint", "weights_sha256"]


def fingerprint(value: object) -> str:
    """Hash plain values, tensors and arrays, and any nesting of them.

    Values of different types, dtypes or shapes have different fingerprints; the order of a
    mapping's keys does not matter.

    Args:
        value: None, a bool, number, string, bytes, tensor or array, or a mapping, list or tuple of
            such.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: If there is anything else in it.

    Example:
        >>> fingerprint({"eps": 0.002, "steps": 10}) == fingerprint({"steps": 10, "eps": 0.002})
        True
        >>> fingerprint([1]) == fingerprint([1.0])
        False
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: object) -> Iterator[bytes]:
    """Yield what is hashed: a tag that says what follows, then the content."""
    if isinstance(value, Mapping):
        yield f"mapping of {len(value)}".encode()
        for key in sorted(value, key=str):
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield f"list of {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Tensor):
        yield from _parts(value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"array {value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, bytes):
        yield b"bytes"
        yield value
    elif value is None or isinstance(value, bool | int | float | str):
        yield f"{type(value).__name__} {value!r}".encode()
    else:
        raise InputError(
            f"a {type(value).__name__} has no fingerprint, expected plain values, tensors and "
            "arrays; give its settings instead"
        )


def weights_sha256(module: nn.Module) -> str:
    """Hash everything that a module keeps, and how it is put together.

    Returns:
        64 hexadecimal digits, the same on every device.
    """
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.flatten().numpy().tobytes())
    return digest.hexdigest()
