"""Read an ONNX graph of waveforms or of Kaldi filter-bank features.

The graph is converted to torch modules where that gives what onnxruntime gives: its layers can then
be observed, and gradients flow. Otherwise onnxruntime runs it as a black box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nip_audio.errors import InputError, MissingDependencyError, ModelCardError
from nip_audio.models.sources.base import SourceModel, SourceSpec, file_hash, read_plain
from nip_audio.models.sources.foreign import (
    FOREIGN_ERRORS,
    Contained,
    contained_waveforms,
    embeddings_of,
    feature_model,
    file_of,
    probe,
    rate_of,
    same,
    waveforms_to_try,
)
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures

__all__ = ["FEATURES", "load"]

FEATURES = ("waveform", "kaldi")
"""What a graph may take."""

_OPTIONS = {"features": "", "bands": "", "rate": "", "window": "hamming", "scale": "", "output": ""}
_FORMS = (
    "expected one input of 32-bit floats: waveforms (batch, samples), or Kaldi features (batch, "
    "frames, bands) with any number of frames; export such a graph"
)


class Taken(NamedTuple):
    """What the graph takes.

    Attributes:
        bands: Bands of Kaldi features; 0 for waveforms.
        channel: Whether waveforms have an axis for channels.
    """

    bands: int
    channel: bool = False


def load(spec: SourceSpec, *, trust: bool = False) -> SourceModel:  # noqa: ARG001
    """Load an ONNX graph.

    Args:
        spec: Source ``onnx:FILE``. Options: ``features`` (``kaldi``, ``waveform``; the number of
            axes of the input decides), ``bands`` (where the graph does not say), ``rate``
            (16000), ``window`` (``hamming``, ``povey``), ``scale`` (32768; the factor on waveforms
            before Kaldi features) and ``output`` (its name, where there are several).
        trust: Has no effect: no code is run.

    Raises:
        ModelCardError: If it is no such graph.
        MissingDependencyError: If onnx or onnxruntime is not installed.
    """
    options = spec.take(_OPTIONS)
    path = file_of(spec)
    data = spec.verified(path.name, read_plain(path.parent, path.name))
    proto = _parsed(data, path)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    rate = rate_of(spec, options["rate"] or said.get("sample_rate", "16000"))
    taken = _taken(spec, proto, options)
    output = _output(spec, proto, options["output"])
    session = OnnxRuntime(data, output)
    if not taken.bands:
        net, note = _converted(proto, output, session, _wavs(rate, taken), path)
        model, able = contained_waveforms(net, rate, str(spec), channel=taken.channel)
        architecture = "ONNX graph of waveforms"
    else:
        front_end = _front_end(spec, options, rate, taken.bands, said)
        tried = _features(front_end)
        net, note = _converted(proto, output, session, tried, path)
        able = probe(net, tried, str(spec))
        model = feature_model(Contained(net, batches=able.batches), front_end)
        architecture = f"ONNX graph of Kaldi features of {taken.bands} bands"
    alone = () if able.batches else ("It takes one item at a time; batches are embedded singly.",)
    return SourceModel(
        model,
        name=path.stem,
        sample_rate_hz=rate,
        files={path.name: file_hash(data)},
        architecture=architecture,
        differentiable=able.differentiable,
        notes=(note, *alone),
    )


class OnnxRuntime(nn.Module):
    """A graph that onnxruntime runs: (B, …) → (B, D), without gradients.

    Args:
        data: Content of the ONNX file.
        output: Name of the output that is the embedding.
    """

    def __init__(self, data: bytes, output: str) -> None:
        super().__init__()
        self.data = data
        self.output_name = output
        self.sha256 = file_hash(data)
        self._session: Any = None

    def extra_repr(self) -> str:
        """Name the content, so that its fingerprint differs from another graph's."""
        return f"sha256={self.sha256}, output={self.output_name}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which is made anew from the content."""
        return {**self.__dict__, "_session": None}

    def forward(self, x: Tensor) -> Tensor:
        """Run the graph.

        Raises:
            ModelCardError: If onnxruntime cannot run it.
        """
        if self._session is None:
            self._session = self._start()
        values = x.detach().to("cpu", torch.float32).contiguous().numpy()
        name = self._session.get_inputs()[0].name
        try:
            out = self._session.run([self.output_name], {name: values})[0]
        except _runtime_errors() as err:
            raise ModelCardError(
                f"onnxruntime cannot run the graph on {tuple(x.shape)} ({str(err)[:300]})"
            ) from err
        return embeddings_of(torch.from_numpy(out), len(x)).to(x)

    def _start(self) -> Any:
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return runtime.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        except _runtime_errors() as err:
            raise ModelCardError(
                f"onnxruntime cannot read the graph ({str(err)[:300]}); check it with onnx.checker"
            ) from err


def _runtime_errors() -> tuple[type[Exception], ...]:
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
    found = (getattr(state, name) for name in (*names, "NoSuchFile", "RuntimeException"))
    return (*found, RuntimeError, ValueError)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as err:
        raise MissingDependencyError(f"an ONNX model needs {name}", extra="onnx") from err


def _parsed(data: bytes, path: Path) -> Any:
    onnx = _package("onnx")
    decode_error = import_module("google.protobuf.message").DecodeError
    try:
        proto = onnx.load_model_from_string(data)
    except decode_error as err:
        raise ModelCardError(f"{path} is no ONNX file; restore it") from err
    if not proto.graph.node:
        raise ModelCardError(f"{path} has no graph, expected an ONNX model; restore it")
    tensors = [*proto.graph.initializer]
    for node in proto.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    outside = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
    if outside or any(t.data_location == onnx.TensorProto.EXTERNAL for t in tensors):
        raise ModelCardError(
            f"{path} keeps weights in other files ({', '.join(sorted(outside)) or 'not named'}), "
            "expected one file: onnx.save(onnx.load(FILE), NEW) writes it"
        )
    return proto


def _taken(spec: SourceSpec, proto: Any, options: Mapping[str, str]) -> Taken:
    """Say what the graph takes, from the shape of its input."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    wanted = options["features"]
    if wanted and wanted not in FEATURES:
        raise ModelCardError(
            f"{spec} has features={wanted}, expected {' or '.join(FEATURES)}; others are not "
            "supported"
        )
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelCardError(
            f"{spec} takes {len(inputs)} inputs ({names}), {_FORMS}. NeMo's models, which take "
            "features of their own and lengths, are not supported"
        )
    tensor = inputs[0].type.tensor_type
    axes = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    shown = ", ".join(str(size or "any") for size in axes)
    if tensor.elem_type != 1 or len(axes) not in (2, 3) or axes[0] > 1:
        raise ModelCardError(f"{spec} takes ({shown}) of type {tensor.elem_type}, {_FORMS}")
    found = _waveforms(axes) if wanted != "kaldi" else None
    found = found or (_kaldi(spec, axes, options["bands"]) if wanted != "waveform" else None)
    if found is None:
        raise ModelCardError(
            f"{spec} takes ({shown}), {_FORMS}"
            + ("" if axes[-1] or len(axes) == 2 else ", or add bands=80 if the last axis is bands")
        )
    return found


def _waveforms(axes: list[int]) -> Taken | None:
    if axes[-1] or (len(axes) == 3 and axes[1] != 1):
        return None
    return Taken(0, channel=len(axes) == 3)


def _kaldi(spec: SourceSpec, axes: list[int], bands: str) -> Taken | None:
    if bands and (not bands.isascii() or not bands.isdigit() or not 4 <= int(bands) <= 512):
        raise ModelCardError(f"{spec} has bands={bands}, expected 4 to 512")
    if len(axes) != 3 or axes[1] or not (axes[2] or bands):
        return None
    if axes[2] and bands and axes[2] != int(bands):
        raise ModelCardError(f"{spec} has bands={bands}, the graph takes {axes[2]}; leave it out")
    return Taken(axes[2] or int(bands))


def _output(spec: SourceSpec, proto: Any, wanted: str) -> str:
    names = [value.name for value in proto.graph.output]
    if wanted and wanted not in names:
        raise ModelCardError(f"{spec} has output={wanted}, expected one of {', '.join(names)}")
    if not wanted and len(names) != 1:
        raise ModelCardError(
            f"{spec} has {len(names)} outputs, expected one; say which is the embedding: "
            f"output={' or output='.join(names)}"
        )
    return wanted or str(names[0])


def _front_end(
    spec: SourceSpec, options: Mapping[str, str], rate: int, bands: int, said: Mapping[str, str]
) -> KaldiFbank:
    """Return the front end; files made for sherpa-onnx say whether samples lie in [-1, 1]."""
    scale = options["scale"] or ("1" if said.get("normalize_samples") == "1" else "32768")
    try:
        return KaldiFbank(rate, bands=bands, window=options["window"], scale=float(scale))
    except (InputError, ValueError) as err:
        raise ModelCardError(f"{spec} has options that do not fit: {err}") from err


def _wavs(rate: int, taken: Taken) -> list[Tensor]:
    return [wav[:, None] if taken.channel else wav for wav in waveforms_to_try(rate)]


def _features(front_end: KaldiFbank) -> list[Tensor]:
    back = KaldiFeatures(front_end.band_range)
    wavs = waveforms_to_try(front_end.sample_rate_hz)
    return [back(front_end(wav)[0]).transpose(1, 2) for wav in wavs]


def _converted(
    proto: Any, output: str, session: OnnxRuntime, tried: list[Tensor], path: Path
) -> tuple[nn.Module, str]:
    """Return torch modules that do what the graph does, or onnxruntime; and say which."""
    abilities = probe(session, tried, str(path))
    reason = "onnx2torch is not installed (pip install onnx2torch)"
    try:
        convert = import_module("onnx2torch").convert
    except ImportError:
        convert = None
    if convert is not None:
        try:
            net = convert(_plainly_named(proto, output)).eval().requires_grad_(False)
            with torch.no_grad():
                pairs = [(embeddings_of(net(x), 1), session(x)) for x in tried]
            if all(same(found, expected) for found, expected in pairs):
                differ = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
                return net, (
                    "The graph was converted to torch modules, which agree with onnxruntime to "
                    f"{differ:.0e} of the largest value; its layers can be observed."
                )
            reason = "the converted graph does not agree with onnxruntime"
        except (*FOREIGN_ERRORS, ModelCardError) as err:
            reason = str(err).strip().splitlines()[0][:200] if str(err) else type(err).__name__
    return session, (
        f"onnxruntime runs the graph as a black box ({reason}): its one layer is the embedding of "
        f"size {abilities.size}, and attacks that need gradients are refused."
    )


def _plainly_named(proto: Any, output: str) -> Any:
    """Copy a graph with names that are plain words and numbers, and with one output.

    The conversion writes Python code in which names of nodes occur, and the author of the file
    chose them.

    Raises:
        ValueError: If it has graphs inside nodes, which are not converted.
    """
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    if graph.sparse_initializer or copy.functions:
        raise ValueError("sparse tensors and local functions are not converted")
    for i, node in enumerate(graph.node):
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise ValueError(f"{node.op_type} holds a graph of its own, which is not converted")
        word = re.sub(r"\W+", "_", node.name or node.op_type, flags=re.ASCII).strip("_")
        node.name = f"n{i}_{word}"
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        if node.domain:
            raise ValueError(f"operators of {node.domain!r} are not converted")
    _weights_in_place(graph)
    kept = [value for value in graph.output if value.name == output]
    del graph.output[:]
    graph.output.extend(kept)
    values: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return values.setdefault(name, f"value_{len(values)}")

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for part in (graph.input, graph.output, graph.value_info, graph.initializer):
        for named in part:
            named.name = renamed(named.name)
    return copy


def _weights_in_place(graph: Any) -> None:
    """Make weights of constants, and of copies of weights, which exporters write to save space."""
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    same_as: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same_as.get(name, name) for name in node.input]
        inner = not outputs.intersection(node.output)
        if inner and node.op_type == "Identity" and node.input[0] in weights:
            same_as[node.output[0]] = node.input[0]
        elif inner and node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            weights.add(tensor.name)
        else:
            kept.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
