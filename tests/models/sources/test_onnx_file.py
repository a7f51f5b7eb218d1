"""ONNX graphs: equal to onnxruntime, converted where possible, and refused where unknown."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from nip_audio.core.adapter import Batch
from nip_audio.errors import MissingDependencyError, ModelCardError
from nip_audio.models.sources.base import load_source, parse_spec

onnx = pytest.importorskip("onnx", reason="the extra onnx reads ONNX files")
runtime = pytest.importorskip("onnxruntime", reason="the extra onnx runs ONNX files")
pytest.importorskip("onnx2torch", reason="the extra onnx converts ONNX files")

BANDS, WIDTH, SIZE = 24, 6, 5


def weights() -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = {"conv": (WIDTH, BANDS, 3), "bias": (WIDTH,), "linear": (SIZE, WIDTH)}
    return [
        onnx.numpy_helper.from_array((0.3 * rng.standard_normal(s)).astype(np.float32), n)
        for n, s in shapes.items()
    ]


def of_features(*, activation: str = "Relu", shape: tuple = ("b", "t", BANDS), **more: Any) -> Any:
    """A small network of features (batch, frames, bands), as WeSpeaker exports one."""
    node = onnx.helper.make_node
    nodes = [
        node("Transpose", ["feats"], ["turned"], perm=[0, 2, 1], name="/model/Transpose"),
        node("Conv", ["turned", "conv", "bias"], ["c"], pads=[1, 1], name="/model/conv1/Conv"),
        node(activation, ["c"], ["active"], name='x"); print("ran"); ("'),
        node("ReduceMean", ["active"], ["mean"], axes=[2], keepdims=0),
        node("Gemm", ["mean", "linear"], ["embs"], transB=1, name="/model/seg_1/Gemm"),
    ]
    return made(nodes, weights(), {"feats": shape}, {"embs": (None, SIZE)}, **more)


def of_waveforms(shape: tuple = ("b", "n"), **more: Any) -> Any:
    """A small network of waveforms."""
    node = onnx.helper.make_node
    rng = np.random.default_rng(1)
    kernel = (0.2 * rng.standard_normal((SIZE, 1, 16))).astype(np.float32)
    starts = [onnx.numpy_helper.from_array(np.array([1]), "axis")] if len(shape) == 2 else []
    nodes = [node("Unsqueeze", ["wav", "axis"], ["rows"])] if len(shape) == 2 else []
    nodes += [
        node("Conv", ["rows" if nodes else "wav", "kernel"], ["c"], strides=[8]),
        node("Tanh", ["c"], ["active"]),
        node("ReduceMean", ["active"], ["embs"], axes=[2], keepdims=0),
    ]
    stored = [onnx.numpy_helper.from_array(kernel, "kernel"), *starts]
    return made(nodes, stored, {"wav": shape}, {"embs": (None, SIZE)}, **more)


def made(
    nodes: list[Any],
    stored: list[Any],
    inputs: dict[str, tuple],
    outputs: dict[str, tuple],
    *,
    kind: int = 1,
    said: dict[str, str] | None = None,
) -> Any:
    values = [
        [onnx.helper.make_tensor_value_info(n, kind, s) for n, s in part.items()]
        for part in (inputs, outputs)
    ]
    graph = onnx.helper.make_graph(nodes, "graph", *values, stored)
    opset = [onnx.helper.make_opsetid("", 14)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.helper.set_model_props(model, said or {})
    return model


def load(model: Any, directory: Path, options: str = "") -> Any:
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return load_source(parse_spec(f"onnx:{path}{options}"))


def run(model: Any, x: torch.Tensor) -> torch.Tensor:
    session = runtime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def noise(seed: int, size: int = 9000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, size, generator=generator)


def features(wav: torch.Tensor, scale: float = 32768.0, window: str = "hamming") -> torch.Tensor:
    found = kaldi.fbank(scale * wav, num_mel_bins=BANDS, window_type=window, dither=0.0)
    return (found - found.mean(0))[None]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal but for 32-bit features: 1e-4 of the largest value."""
    return float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_a_graph_of_kaldi_features_becomes_torch_modules(tmp_path, capsys):
    model = of_features()
    source = load(model, tmp_path)
    assert "converted to torch modules" in source.notes[0]
    assert source.differentiable
    assert source.sample_rate_hz == 16000
    assert list(source.files) == ["model.onnx"]
    wavs = [noise(0)[0], noise(1, 6000)[0]]
    together = source.model.embed(Batch.collate(wavs))
    for row, wav in zip(together, wavs, strict=True):
        assert close(row[None], run(model, features(wav[None])))
    assert "ran" not in capsys.readouterr().out
    layer = next(n for n, _ in source.model.network.named_modules() if n.endswith("conv1_Conv"))
    with source.model.tap(layer, "output") as tap:
        source.model.embed(Batch(noise(0)))
    assert tap[layer].shape[:2] == (1, WIDTH)
    assert tap["output"].shape == (1, SIZE)


def test_gradients_reach_the_waveform(tmp_path):
    model = load(of_features(), tmp_path).model
    wav = noise(0).requires_grad_()
    (gradient,) = torch.autograd.grad(model.embed(Batch(wav)).square().sum(), wav)
    assert float(gradient.abs().max()) > 0


def test_a_graph_that_does_not_convert_is_a_black_box(tmp_path):
    model = of_features(activation="Shrink")
    source = load(model, tmp_path)
    assert "black box" in source.notes[0]
    assert not source.differentiable
    assert close(source.model.embed(Batch(noise(0))), run(model, features(noise(0))))
    assert not source.model.embed(Batch(noise(0).requires_grad_())).requires_grad
    twin = copy.deepcopy(source.model)
    assert torch.equal(twin.embed(Batch(noise(0))), source.model.embed(Batch(noise(0))))
    with source.model.tap("output") as tap:
        source.model.embed(Batch.collate([noise(0)[0], noise(1, 6000)[0]]))
    assert tap["output"].shape == (2, SIZE)


@pytest.mark.parametrize("shape", [("b", "n"), ("b", 1, "n")])
def test_a_graph_of_waveforms(shape, tmp_path):
    model = of_waveforms(shape)
    source = load(model, tmp_path, "?rate=8000")
    assert source.sample_rate_hz == 8000
    assert source.differentiable
    wav = noise(0, 8192)  # whole steps of the front end
    expected = run(model, wav[:, None] if len(shape) == 3 else wav)
    assert close(source.model.embed(Batch(wav)), expected)


def test_a_graph_of_one_item_embeds_batches_singly(tmp_path):
    model = of_features(shape=(1, "t", BANDS))
    source = load(model, tmp_path)
    both = source.model.embed(Batch(torch.cat([noise(0), noise(1)])))
    assert close(both[1:], run(model, features(noise(1))))


def test_settings_of_the_features(tmp_path):
    model = of_features()
    source = load(model, tmp_path, "?window=povey&scale=1")
    expected = run(model, features(noise(0), 1.0, "povey"))
    assert close(source.model.embed(Batch(noise(0))), expected)
    said = of_features(said={"normalize_samples": "1", "sample_rate": "8000"})
    source = load(said, tmp_path)
    assert source.model.front_end.scale == 1
    assert source.sample_rate_hz == 8000


def test_weights_that_are_copies_or_constants_are_found(tmp_path):
    model = of_features()
    node = onnx.helper.make_node
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kernel = stored["conv"]
    kernel.name = "kernel"
    model.graph.initializer.remove(stored["linear"])
    first = [
        node("Identity", ["kernel"], ["conv"]),
        node("Constant", [], ["linear"], value=stored["linear"]),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*first, *rest])
    source = load(model, tmp_path)
    assert "converted" in source.notes[0]
    assert close(source.model.embed(Batch(noise(0))), run(model, features(noise(0))))


@pytest.mark.parametrize(
    ("model", "options", "match"),
    [
        (of_features(shape=("b", 200, BANDS)), "", "any number of frames"),
        (of_features(shape=("b", BANDS, "t")), "", "add bands=80"),
        (of_features(shape=(4, "t", BANDS)), "", r"takes \(4, any, 24\)"),
        (of_features(), "?bands=80", "the graph takes 24"),
        (of_features(), "?bands=many", "expected 4 to 512"),
        (of_features(), "?features=mfcc", "expected waveform or kaldi"),
        (of_features(), "?features=waveform", r"takes \(any, any, 24\)"),
        (of_features(), "?window=hann", "expected one of hamming, povey"),
        (of_features(), "?scale=much", "options that do not fit"),
        (of_features(), "?rate=0", "sample rate of the model"),
        (of_features(), "?output=logits", "expected one of embs"),
        (of_features(), "?hop=160", "option 'hop'"),
        (of_waveforms(("b", 16000)), "", r"takes \(any, 16000\)"),
        (of_waveforms(), "?features=kaldi", r"takes \(any, any\)"),
        (of_waveforms(kind=11), "", "32-bit floats"),
    ],
)
def test_refuses_other_graphs_and_options(model, options, match, tmp_path):
    with pytest.raises(ModelCardError, match=match):
        load(model, tmp_path, options)


def test_refuses_several_inputs_and_outputs(tmp_path):
    model = of_features()
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean", 1, (None, WIDTH)))
    with pytest.raises(ModelCardError, match="output=embs or output=mean"):
        load(model, tmp_path)
    source = load(model, tmp_path, "?output=mean")
    assert source.model.embed(Batch(noise(0))).shape == (1, WIDTH)
    model.graph.input.append(onnx.helper.make_tensor_value_info("length", 7, ("b",)))
    with pytest.raises(ModelCardError, match=r"2 inputs \(feats, length\).*NeMo"):
        load(model, tmp_path, "?output=mean")


def test_refuses_frames_in_place_of_an_embedding(tmp_path):
    model = of_features()
    value = onnx.helper.make_tensor_value_info("active", 1, (None, WIDTH, None))
    model.graph.output.append(value)
    with pytest.raises(ModelCardError, match="ends in the embedding"):
        load(model, tmp_path, "?output=active")


def test_refuses_weights_outside_the_file(tmp_path):
    model = of_features()
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    with pytest.raises(ModelCardError, match=r"other files \(\.\./secret\)"):
        load(model, tmp_path)


@pytest.mark.parametrize("data", [b"", b"no graph at all", b"\x08\x07"])
def test_refuses_what_is_no_graph(data, tmp_path):
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelCardError, match=r"no ONNX file|has no graph"):
        load_source(parse_spec(f"onnx:{tmp_path / 'model.onnx'}"))


def test_refuses_directories_and_missing_files(tmp_path):
    with pytest.raises(ModelCardError, match="expected a file"):
        load_source(parse_spec(f"onnx:{tmp_path}"))
    with pytest.raises(ModelCardError, match="cannot be read"):
        load_source(parse_spec(f"onnx:{tmp_path / 'none.onnx'}"))


def test_refuses_a_graph_that_onnxruntime_cannot_read(tmp_path):
    with pytest.raises(ModelCardError, match="onnxruntime cannot read the graph"):
        load(of_features(activation="NoSuchOperator"), tmp_path)


def test_says_which_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"\[onnx\]"):
        load(of_features(), tmp_path)


def test_without_the_converter_it_is_a_black_box(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    source = load(of_features(), tmp_path)
    assert "onnx2torch is not installed" in source.notes[0]
    assert not source.differentiable
