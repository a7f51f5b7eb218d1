"""How far two ways of computing the same may lie apart, from the dtype and the depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TERMS = 1024
"""Terms of one sum: about as many as a layer of these networks, or a band of a spectrogram, has."""


def rounding(depth: int = 1, *, dtype: torch.dtype = torch.float32, size: float = 1.0) -> float:
    """Absolute difference that rounding may make between two orders of the same computation.

    The order of a sum is not ours to choose. It follows from the width of a processor's vectors,
    from whether it multiplies and adds at once, from the number of threads, and from how many items
    share a product. A sum of n terms that is added up in another order differs by about eps · √n,
    because single roundings go either way, and the differences of layers add up to √depth for the
    same reason. All is relative to the largest value: the error of large terms stays when they
    cancel.

    Args:
        depth: Sums that follow on each other; 1 for a norm, a mean or a product of matrices.
        dtype: What is computed in.
        size: The largest value there is.
    """
    return torch.finfo(dtype).eps * (TERMS * depth) ** 0.5 * size


def depth_of(*modules: nn.Module) -> int:
    """Sums that follow on each other in a network: its modules that hold a matrix of their own."""
    layers = [layer for module in modules for layer in module.modules()]
    owned = [[*layer.parameters(recurse=False), *layer.buffers(recurse=False)] for layer in layers]
    return max(1, sum(any(tensor.dim() > 1 for tensor in tensors) for tensors in owned))


def assert_same_but_for_rounding(
    found: Tensor, expected: Tensor, *, depth: int, size: float | None = None
) -> None:
    """Equal but for the order of sums: see ``rounding``.

    Args:
        found: Values of any shape and floating dtype.
        expected: The same, computed another way.
        depth: Sums that follow on each other on the way to these values: see ``depth_of``.
        size: The largest value on the way; by default that of what is expected.
    """
    largest = float(expected.detach().abs().max()) if size is None else size
    atol = rounding(depth, dtype=expected.dtype, size=largest)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def assert_same_but_for_signs(found: Tensor, expected: Tensor) -> None:
    """Equal after steps along the signs of a gradient, but for a thousandth of the values.

    Where a gradient is nearly 0, rounding may take its sign either way, and the step with it.
    """
    same = (found - expected).abs() <= rounding(dtype=expected.dtype)
    assert same.double().mean() > 0.999
