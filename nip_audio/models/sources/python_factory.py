"""Take a model from the user's own Python function."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.fingerprint import weights_sha256
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.near import suggest_names
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, file_hash, read_plain
from nip_audio.models.sources.foreign import FOREIGN_ERRORS, contained_waveforms, rate_of

__all__ = ["load"]

_FORM = "python:PACKAGE.MODULE:FACTORY"


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:
    """Call a function that returns a model.

    Args:
        spec: Source ``python:PACKAGE.MODULE:FACTORY``. The factory takes no argument. It returns a
            torch module of waveforms (batch, samples), or an ``InstrumentedModel`` whose raw input
            lies in [-1, 1] and whose model input lies in [0, 1]. The option ``rate`` is the sample
            rate; it defaults to the front end's, or 16000.
        trust: Whether the code may run.

    Raises:
        ModelCardError: If it is not trusted, cannot be imported, or returns something else.
    """
    if not trust:
        raise ModelCardError(f"{spec} runs code, expected trust; pass trust=True")
    options = spec.take({"rate": ""})
    module_name, colon, factory_name = spec.location.partition(":")
    if not colon or not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelCardError(f"{spec} names no function, expected {_FORM}")
    source = _file_of(spec, module_name)
    # before the module is imported, which runs it
    code = spec.verified(source.name, read_plain(source.parent, source.name))
    module = _imported(spec, module_name)
    made = _made(spec, module, factory_name)
    files = {source.name: file_hash(code)}
    files["weights"] = weights_sha256(made)
    name = f"{module_name}:{factory_name}"
    if isinstance(made, InstrumentedModel):
        rate = _rate(spec, made, options["rate"])
        return SourceModel(
            made.eval().requires_grad_(False),
            name=name,
            sample_rate_hz=rate,
            files=files,
            architecture=type(made.network).__name__,
        )
    rate = rate_of(spec, options["rate"] or "16000")
    model, able = contained_waveforms(made.eval().requires_grad_(False), rate, str(spec))
    alone = () if able.batches else ("It takes one item at a time; batches are embedded singly.",)
    return SourceModel(
        model,
        name=name,
        sample_rate_hz=rate,
        files=files,
        architecture=type(made).__name__,
        differentiable=able.differentiable,
        notes=("Only the module's own file is part of its identity, not what it imports.", *alone),
    )


def _file_of(spec: SourceSpec, name: str) -> Path:
    """Find the file of a module without importing it, nor the packages around it."""
    folders: Any = None
    found = None
    for depth in range(1, name.count(".") + 2):
        whole = ".".join(name.split(".")[:depth])
        if depth > 1 and folders is None:
            break
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        specs = (finder.find_spec(whole, folders) for finder in finders)
        found = next((one for one in specs if one is not None), None)
        if found is None:
            raise ModelCardError(
                f"{spec}: {whole} cannot be imported, since no module of this name is installed; "
                "install it, or set PYTHONPATH to the folder that holds it"
            )
        folders = found.submodule_search_locations
    if found is None or not found.has_location or not found.origin:
        raise ModelCardError(
            f"{spec}: {name} has no file of its own, expected a module of Python code; name one"
        )
    return Path(found.origin)


def _imported(spec: SourceSpec, name: str) -> ModuleType:
    try:
        return import_module(name)
    except (ImportError, SyntaxError, *FOREIGN_ERRORS) as err:
        raise ModelCardError(
            f"{spec}: {name} cannot be imported ({type(err).__name__}: {err}); install it, "
            "or set PYTHONPATH to the folder that holds it"
        ) from err


def _made(spec: SourceSpec, module: ModuleType, name: str) -> nn.Module:
    factory: Any = getattr(module, name, None)
    if not callable(factory):
        public = [word for word, value in vars(module).items() if callable(value)]
        raise ModelCardError(
            f"{spec}: {module.__name__} has no function {name!r}; {suggest_names(name, public)}"
        )
    try:
        made = factory()
    except FOREIGN_ERRORS as err:
        raise ModelCardError(
            f"{spec}: the function failed ({type(err).__name__}: {err}); it is called without "
            "arguments"
        ) from err
    if not isinstance(made, nn.Module):
        raise ModelCardError(
            f"{spec} returns {type(made).__name__}, expected a torch module of waveforms or an "
            "InstrumentedModel"
        )
    return made


def _rate(spec: SourceSpec, model: InstrumentedModel, given: str) -> int:
    """Check the ranges of an instrumented model, and return its sample rate."""
    if model.bounds != Bounds(-1.0, 1.0) or model.input_bounds != Bounds(0.0, 1.0):
        raise ModelCardError(
            f"{spec} returns a model of raw input in [{model.bounds.low:g}, {model.bounds.high:g}] "
            f"and model input in [{model.input_bounds.low:g}, {model.input_bounds.high:g}], "
            "expected [-1, 1] and [0, 1]; map decibels to [0, 1] in the front end"
        )
    own = getattr(model.front_end, "sample_rate_hz", None)
    if own is None:
        return rate_of(spec, given or "16000")
    if given and rate_of(spec, given) != own:
        raise ModelCardError(f"{spec}: the front end has {own} Hz; leave rate={given} out")
    return int(own)
