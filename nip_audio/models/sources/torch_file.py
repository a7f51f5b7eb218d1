"""Read torch's own formats: TorchScript modules and programs of ``torch.export``, of waveforms.

Both can run code of their author when they are read, so ``load_source`` asks for trust first.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any
from zipfile import BadZipFile

import torch
from torch import nn

from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, file_hash, read_plain
from nip_audio.models.sources.foreign import (
    FOREIGN_ERRORS,
    contained_waveforms,
    file_of,
    rate_of,
)

__all__ = ["load"]

_READ_ERRORS = (*FOREIGN_ERRORS, BadZipFile, EOFError, OSError)


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:
    """Load a TorchScript module or an exported program that takes waveforms (batch, samples).

    Args:
        spec: Source ``torchscript:FILE`` or ``export:FILE.pt2``; the option ``rate`` is the sample
            rate (16000).
        trust: Whether code of the file may run.

    Raises:
        ModelCardError: If it is not trusted, cannot be read, or does not embed waveforms of any
            length.
    """
    if not trust:
        raise ModelCardError(
            f"{spec} can run code when it is read, expected trust; pass trust=True"
        )
    rate = rate_of(spec, spec.take({"rate": "16000"})["rate"])
    path = file_of(spec)
    # before anything of it is parsed, since it may run code
    data = spec.verified(path.name, read_plain(path.parent, path.name))
    scripted = spec.kind == "torchscript"
    net = _scripted(spec, data) if scripted else _exported(spec, data)
    model, able = contained_waveforms(net, rate, str(spec))
    notes = ["Its layers cannot be observed from outside; the one layer is the embedding."]
    if not scripted:
        notes = ["Its layers are those of the exported graph."]
    if not able.batches:
        notes.append("It takes one item at a time; batches are embedded singly.")
    return SourceModel(
        model,
        name=path.stem,
        sample_rate_hz=rate,
        files={path.name: file_hash(data)},
        architecture="TorchScript module" if scripted else "program of torch.export",
        differentiable=able.differentiable,
        notes=tuple(notes),
    )


def _scripted(spec: SourceSpec, data: bytes) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the format is deprecated; files of it remain
            load_script: Callable[..., nn.Module] = torch.jit.load
            return load_script(io.BytesIO(data), map_location="cpu").eval()
    except _READ_ERRORS as err:
        raise ModelCardError(
            f"{spec} is no TorchScript module ({_reason(err)}); expected what torch.jit.save wrote"
        ) from err


def _exported(spec: SourceSpec, data: bytes) -> nn.Module:
    try:
        program = torch.export.load(io.BytesIO(data))
        net: nn.Module = program.module()
    except _READ_ERRORS as err:
        raise ModelCardError(
            f"{spec} is no exported program ({_reason(err)}); expected what torch.export.save of "
            "this version of torch or an earlier one wrote"
        ) from err
    axes = _axes(program)
    shown = "; ".join(", ".join(str(size or "any") for size in shape) for shape in axes)
    if len(axes) != 1 or len(axes[0]) != 2:
        raise ModelCardError(
            f"{spec} takes ({shown}), expected one input of waveforms (batch, samples)"
        )
    batch, samples = axes[0]
    if samples:
        raise ModelCardError(
            f"{spec} takes waveforms of exactly {samples} samples, expected any number; export it "
            "with dynamic_shapes={0: Dim('batch'), 1: Dim('samples')} for its input"
        )
    if batch > 1:
        raise ModelCardError(
            f"{spec} takes exactly {batch} items at a time, expected any number or 1; export it "
            "with dynamic_shapes={0: Dim('batch'), 1: Dim('samples')} for its input"
        )
    return net


def _axes(program: Any) -> list[list[int]]:
    """Return the sizes of the inputs' axes; 0 stands for any."""
    names = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names and torch.is_tensor(node.meta["val"])
    ]
    return [[size if isinstance(size, int) else 0 for size in shape] for shape in shapes]


def _reason(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0][:200] if text else type(err).__name__
