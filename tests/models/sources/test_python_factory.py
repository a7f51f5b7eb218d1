"""Models from the user's own function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import SourceModel, load_source, parse_spec

CODE = """
import torch
from torch import nn
from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.audio.features import LogMel
from nip_audio.models.xvector import Xvector


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 5, 32, stride=8)
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.drop(self.conv(x[:, None])).tanh().mean(2)


def embedder():
    return Embedder()


def whole(low=0.0):
    torch.manual_seed(0)
    return InstrumentedModel(
        Xvector(channels=[8] * 5, embedding_dim=4),
        front_end=LogMel(8000),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(low, 1.0),
        output_kind="cosine",
    )


def other_range():
    return whole(-1.0)


def nothing():
    return None


def failing():
    raise RuntimeError("no weights here")


def asking(name):
    return Embedder()
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> Iterator[Path]:
    """A package of the user's, with one module."""
    folder = tmp_path / "users_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield folder / "models.py"
    for name in [name for name in sys.modules if name.startswith("users_package")]:
        del sys.modules[name]


def load(factory: str, *, trust: bool = True) -> SourceModel:
    return load_source(parse_spec(f"python:users_package.models:{factory}"), trust=trust)


@pytest.mark.usefixtures("module")
def test_a_module_of_waveforms():
    source = load("embedder?rate=8000")
    assert source.name == "users_package.models:embedder"
    assert source.sample_rate_hz == 8000
    assert source.architecture == "Embedder"
    assert sorted(source.files) == ["models.py", "weights"]
    wav = 0.1 * torch.randn(1, 8064, generator=torch.Generator().manual_seed(0))
    net = sys.modules["users_package.models"].Embedder().eval()
    # a complex spectrum and its inverse change a waveform by 1e-6
    with torch.no_grad():
        assert float((source.model.embed(Batch(wav)) - net(wav)).abs().max()) < 1e-5
    with source.model.tap("module.net.conv") as tap:
        source.model.embed(Batch(wav))
    assert tap["module.net.conv"].shape[:2] == (1, 5)


@pytest.mark.usefixtures("module")
def test_an_instrumented_model():
    source = load("whole")
    assert source.sample_rate_hz == 8000
    assert source.architecture == "Xvector"
    assert not source.model.training
    assert not any(p.requires_grad for p in source.model.parameters())
    assert load("whole?rate=8000").files == source.files


def test_code_and_weights_are_its_identity(module):
    before = load("embedder").files
    assert load("embedder").files == before
    del sys.modules["users_package.models"]
    module.write_text(CODE.replace("manual_seed(0)", "manual_seed(11)"))
    importlib.invalidate_caches()
    after = load("embedder").files
    assert after["models.py"] != before["models.py"]
    assert after["weights"] != before["weights"]


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("factory", "match"),
    [
        ("nothing", "returns NoneType"),
        ("failing", "no weights here"),
        ("asking", "called without arguments"),
        ("embeder", "did you mean embedder"),
        ("other_range", r"model input in \[-1, 1\]"),
        ("whole?rate=16000", "the front end has 8000 Hz"),
        ("embedder?rate=1", "sample rate of the model"),
        ("embedder?bands=80", "option 'bands'"),
    ],
)
def test_refuses_other_functions_and_options(factory, match):
    with pytest.raises(ModelCardError, match=match):
        load(factory)


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("nowhere_to_be_found:make", "set PYTHONPATH"),
        ("users_package.models", "names no function"),
        ("../models.py:make", "names no function"),
        ("sys:getsizeof", "has no file of its own"),
    ],
)
def test_refuses_what_cannot_be_imported(location, match):
    with pytest.raises(ModelCardError, match=match):
        load_source(parse_spec(f"python:{location}"), trust=True)


@pytest.mark.usefixtures("module")
def test_is_imported_only_with_trust():
    with pytest.raises(ModelCardError, match="can run any code"):
        load("embedder", trust=False)
    assert "users_package.models" not in sys.modules
