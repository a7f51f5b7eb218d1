"""TorchScript modules and exported programs of waveforms."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import load_source, parse_spec

STEP = 128  # of the front end: waveforms are padded with zeros to whole steps


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 6, 32, stride=8)
        self.drop = nn.Dropout()
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.conv(x[:, None]).tanh()).mean(2))


class Frames(Embedder):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, None])


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean(1), x.std(1)], 1).sign()


def script(net: nn.Module, directory: Path, options: str = "") -> str:
    path = directory / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what many models come as
        torch.jit.save(torch.jit.trace(net.eval(), torch.rand(2, 8000)), path)
    return f"torchscript:{path}{options}"


def export(net: nn.Module, directory: Path, shape: tuple[int, ...], *free: int) -> str:
    path = directory / "model.pt2"
    axes = dict.fromkeys(free, Dim.DYNAMIC)
    program = torch.export.export(net.eval(), (torch.rand(shape),), dynamic_shapes=(axes,))
    torch.export.save(program, path)
    return f"export:{path}"


def load(spec: str, *, trust: bool = True) -> object:
    return load_source(parse_spec(spec), trust=trust)


def noise(seed: int, size: int = 63 * STEP) -> Tensor:
    return 0.1 * torch.randn(1, size, generator=torch.Generator().manual_seed(seed))


def check_embeds(source: object, net: nn.Module) -> None:
    """The wrapped model gives what the module gives, in batches and with gradients."""
    wavs = [noise(0)[0], noise(1, 40 * STEP)[0]]
    with torch.no_grad():
        both = source.model.embed(Batch.collate(wavs))
        expected = torch.cat([net(wav[None]) for wav in wavs])
    # a complex spectrum and its inverse change a waveform by 1e-6
    assert float((both - expected).abs().max()) < 1e-5
    assert source.differentiable
    wav = noise(0).requires_grad_()
    (gradient,) = torch.autograd.grad(source.model.embed(Batch(wav)).square().sum(), wav)
    assert float(gradient.abs().max()) > 0


def test_a_scripted_module(tmp_path):
    net = Embedder()
    source = load(script(net, tmp_path, "?rate=8000"))
    assert source.sample_rate_hz == 8000
    assert source.architecture == "TorchScript module"
    assert list(source.files) == ["model.pt"]
    check_embeds(source, net)


def test_an_exported_program(tmp_path):
    net = Embedder()
    source = load(export(net, tmp_path, (2, 8000), 0, 1))
    assert source.architecture == "program of torch.export"
    check_embeds(source, net)
    source.model.train()
    check_embeds(source, net)


def test_an_exported_program_of_one_item(tmp_path):
    net = Embedder()
    source = load(export(net, tmp_path, (1, 8000), 1))
    assert any("one item at a time" in note for note in source.notes)
    check_embeds(source, net)


@pytest.mark.parametrize(
    ("shape", "free", "match"),
    [
        ((2, 16000), (0,), "exactly 16000 samples"),
        ((4, 16000), (1,), "exactly 4 items"),
    ],
)
def test_refuses_exported_programs_of_one_size(shape, free, match, tmp_path):
    with pytest.raises(ModelCardError, match=match):
        load(export(Embedder(), tmp_path, shape, *free))


def test_refuses_frames_in_place_of_an_embedding(tmp_path):
    with pytest.raises(ModelCardError, match="ends in the embedding"):
        load(script(Frames(), tmp_path))


def test_says_that_gradients_do_not_reach_the_waveform(tmp_path):
    assert not load(script(Steps(), tmp_path)).differentiable


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_is_read_only_with_trust(kind, tmp_path):
    (tmp_path / "model").write_bytes(b"")
    with pytest.raises(ModelCardError, match="can run any code when it is read"):
        load(f"{kind}:{tmp_path / 'model'}", trust=False)


@pytest.mark.parametrize("kind", ["torchscript", "export"])
@pytest.mark.filterwarnings("ignore")
def test_refuses_other_files(kind, tmp_path):
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(ModelCardError, match="is no"):
        load(f"{kind}:{tmp_path / 'model'}")
    with pytest.raises(ModelCardError, match="cannot be read"):
        load(f"{kind}:{tmp_path / 'none'}")
    with pytest.raises(ModelCardError, match="expected a file"):
        load(f"{kind}:{tmp_path}")
    with pytest.raises(ModelCardError, match="sample rate of the model"):
        load(f"{kind}:{tmp_path / 'model'}?rate=fast")
