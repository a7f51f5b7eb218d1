"""The command that writes ONNX graphs."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from nip_audio.models import exporting

needs_exporter = pytest.mark.skipif(
    find_spec("onnx") is None or find_spec("onnxscript") is None,
    reason="the extra onnx holds the exporter (onnx, onnxscript)",
)
MODEL = "xvector-libri251"


@pytest.fixture
def graph(monkeypatch):
    """Write the names of a graph in its place, since a real export takes many seconds."""
    asked = []

    def write(module, example, axes, names, said):
        asked.append((tuple(example.shape), names, said))
        return b"graph"

    monkeypatch.setattr(exporting, "_graph", write)
    return asked


def test_exports_a_model(run, tmp_path, graph, pretrained):
    code, out, _ = run("export", MODEL, "--out", tmp_path / "a.onnx")
    assert code == 0
    assert "model of xvector-libri251 (waveform to embedding, 16 kHz)" in out
    assert (tmp_path / "a.onnx").read_bytes() == b"graph"
    assert graph[0][2] == {"sample_rate": "16000", "model_id": pretrained.model_id}
    code, _, err = run("export", MODEL, "--out", tmp_path / "a.onnx")
    assert code == 65
    assert "exists already" in err
    assert run("export", MODEL, "--out", tmp_path / "a.onnx", "--force")[0] == 0


def test_exports_the_models_own_purifier(run, tmp_path, graph):
    out = tmp_path / "p.onnx"
    code, text, _ = run("export", "audionet-libri251", "--part", "purifier", "--out", out, "--json")
    assert code == 0
    said = json.loads(text)
    assert (said["part"], said["takes"], said["returns"]) == (
        *("purifier", "spectrogram", "purified"),
    )
    assert said["out"] == str(out)
    assert graph[0][0][1] == 32  # bands of the model's front end


def test_a_purifier_file_is_exported_without_saying_so(run, tmp_path, graph, pretrained):
    file = pretrained.card.directory.parent / "audionet-libri251" / "purifier.safetensors"
    code, _, err = run("export", MODEL, "--purifier", file, "--out", tmp_path / "p.onnx")
    assert code == 65
    assert "model" in err  # it belongs to another model
    model = ("audionet-libri251", "--purifier", file)
    assert run("export", *model, "--out", tmp_path / "p.onnx")[0] == 0
    code, _, err = run("export", *model, "--part", "model", "--out", tmp_path / "q.onnx")
    assert code == 65
    assert "with --part model, expected one of them" in err


def test_refuses_what_has_no_graph(run, tmp_path):
    out = tmp_path / "a.onnx"
    code, _, err = run("export", "lenet5-mnist", "--out", out)
    assert code == 65
    assert "only models of speech that come with nip-audio" in err
    code, _, err = run("export", "resnet20-gtsrb", "--part", "purifier", "--out", out)
    assert code == 65
    assert "comes without a guided purifier; pass --purifier FILE" in err
    assert not out.exists()


@needs_exporter
@pytest.mark.slow
def test_writes_a_graph_that_onnx_reads(run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx reads graphs")
    code, _, err = run("export", "audionet-libri251", "--out", tmp_path / "a.onnx")
    assert code == 0, err
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"))
