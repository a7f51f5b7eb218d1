"""WeSpeaker's ResNets, against the same arithmetic written with torch's functions alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torchaudio.compliance import kaldi

from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError
from nip_audio.models.sources.base import load_source, parse_spec
from nip_audio.models.sources.kaldi import KaldiFbank, KaldiFeatures
from nip_audio.models.sources.wespeaker_resnet import DEPTHS, WeSpeakerResNet
from tests.tolerance import assert_same_but_for_rounding, depth_of

CONFIG = {
    "model": "ResNet18",
    "model_args": {
        "feat_dim": 80,
        "embed_dim": 32,
        "pooling_func": "TSTP",
        "two_emb_layer": False,
    },
    "dataset_args": {
        "resample_rate": 16000,
        "fbank_args": {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0},
    },
}


def random_state(net: torch.nn.Module) -> dict[str, Tensor]:
    """Draw weights and running statistics, all of which then matter."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            state[name] = value
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.dim() == 1:
            state[name] = 0.3 * torch.randn(value.shape, generator=generator)
        else:
            spread = (2 / value[0].numel()) ** 0.5
            state[name] = spread * torch.randn(value.shape, generator=generator)
    return state


def write(directory: Path, **changes: object) -> Path:
    """Write a model as WeSpeaker does, with a head of training speakers."""
    args = {**CONFIG["model_args"], **changes.get("model_args", {})}
    config = {**CONFIG, **changes, "model_args": args}
    net = WeSpeakerResNet(
        config["model"],
        KaldiFeatures(KaldiFbank().band_range),
        embedding_dim=args["embed_dim"],
        pooling=args["pooling_func"],
        two_layers=args["two_emb_layer"],
    )
    state = random_state(net)
    directory.mkdir(exist_ok=True)
    torch.save({**state, "projection.weight": torch.ones(7, 32)}, directory / "avg_model.pt")
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state.get(f"{name}.weight"), state.get(f"{name}.bias"))


def reference(wav: Tensor, state: dict[str, Tensor], depth: str, pooling: str, two: bool) -> Tensor:
    """Embed one waveform (N,) as the paper says."""
    feats = kaldi.fbank(32768 * wav[None], num_mel_bins=80, window_type="hamming", dither=0.0)
    x = (feats - feats.mean(0)).T[None, None]
    x = norm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1").relu()
    blocks, bottleneck = DEPTHS[depth]
    kernels = (1, 3, 1) if bottleneck else (3, 3)
    for layer, count in enumerate(blocks, start=1):
        for i in range(count):
            name, stride, y = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1, x
            for k, size in enumerate(kernels, start=1):
                step = stride if k == (2 if bottleneck else 1) else 1
                weight = state[f"{name}.conv{k}.weight"]
                y = F.conv2d(y, weight, stride=step, padding=size // 2)
                y = norm(y, state, f"{name}.bn{k}")
                y = y.relu() if k < len(kernels) else y
            if f"{name}.shortcut.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.shortcut.0.weight"], stride=stride)
                x = norm(x, state, f"{name}.shortcut.1")
            x = (x + y).relu()
    x = x.flatten(1, 2)
    weights = torch.full_like(x, 1 / x.shape[2])
    if pooling == "ASTP":
        hidden = F.conv1d(x, state["pool.linear1.weight"], state["pool.linear1.bias"]).tanh()
        hidden = F.conv1d(hidden, state["pool.linear2.weight"], state["pool.linear2.bias"])
        weights = hidden.softmax(2)
    mean = (weights * x).sum(2)
    if pooling == "ASTP":
        std = ((weights * x**2).sum(2) - mean**2).clamp(min=1e-7).sqrt()
    else:
        std = (x.var(2) + 1e-7).sqrt()
    parts = {"TAP": [mean], "TSDP": [std]}.get(pooling, [mean, std])
    out = F.linear(torch.cat(parts, 1), state["seg_1.weight"], state["seg_1.bias"])
    if two:
        out = norm(out.relu(), state, "seg_bn_1")
        out = F.linear(out, state["seg_2.weight"], state["seg_2.bias"])
    return out


def noises() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(size, generator=generator) for size in (8000, 5000)]


@pytest.mark.parametrize(
    ("depth", "pooling", "two"),
    [
        ("ResNet18", "TSTP", False),
        ("ResNet34", "TSTP", False),
        ("ResNet50", "TAP", False),
        ("ResNet18", "ASTP", True),
        ("ResNet18", "TSDP", True),
    ],
)
def test_embeds_as_the_paper_says(depth, pooling, two, tmp_path):
    write(tmp_path, model=depth, model_args={"pooling_func": pooling, "two_emb_layer": two})
    source = load_source(parse_spec(f"wespeaker:{tmp_path}"))
    state = torch.load(tmp_path / "avg_model.pt", weights_only=True)  # noqa: TID251
    wavs = noises()
    with torch.no_grad():
        together = source.model.embed(Batch.collate(wavs))
        deep = depth_of(source.model.network)
        for row, wav in zip(together, wavs, strict=True):
            single = source.model.embed(Batch(wav[None]))
            assert_same_but_for_rounding(row[None], single, depth=deep)
            # both front ends work in 32 bits; in a quiet band that is 1e-4 of a level of 20
            expected = reference(wav, state, depth, pooling, two)
            worst = float((single - expected).abs().max() / expected.abs().max())
            assert worst < 1e-4


def test_describes_the_source(tmp_path):
    directory = write(tmp_path / "voxceleb", exp_dir="exp/a&b")
    source = load_source(parse_spec(f"wespeaker:{directory}"))
    assert source.name == "voxceleb"
    assert source.sample_rate_hz == 16000
    assert sorted(source.files) == ["avg_model.pt", "config.yaml"]
    assert "ResNet18 of WeSpeaker" in source.architecture
    assert source.differentiable
    assert not any(p.requires_grad for p in source.model.parameters())
    assert (source.model.input_bounds.low, source.model.input_bounds.high) == (0.0, 1.0)


def test_layers_are_tapped_with_their_lengths(tmp_path):
    model = load_source(parse_spec(f"wespeaker:{write(tmp_path)}")).model
    batch = model.to_input(Batch.collate(noises()))
    layers = ("conv1", "layer1", "layer2.0", "layer4", "output")
    with model.tap(*layers) as tap, torch.no_grad():
        model.embed_input(batch)
    for layer in layers[:-1]:
        out, lengths = tap[layer], model.tap_lengths(layer, batch.lengths)
        assert out.dim() == 4
        assert int(lengths.max()) == out.shape[3]
    assert tap["output"].shape == (2, 32)
    assert bool((tap["layer4"][1, ..., int(lengths[1]) :] == 0).all())


def test_gradients_reach_the_waveform(tmp_path):
    model = load_source(parse_spec(f"wespeaker:{write(tmp_path)}")).model
    wav = noises()[0][None].requires_grad_()
    (gradient,) = torch.autograd.grad(model.embed(Batch(wav)).square().sum(), wav)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dataset_args": {"frontend": "whisper_encoder"}}, "front end 'whisper_encoder'"),
        ({"dataset_args": {"cmvn_args": {"norm_var": True}}}, "norm_var True"),
        ({"dataset_args": {"fbank_args": {"num_mel_bins": 40}}}, "40 mel bands and feat_dim 80"),
        ({"dataset_args": {"fbank_args": {"high_freq": 7600}}}, "'high_freq', expected one of"),
        ({"dataset_args": {"fbank_args": {"num_mel_bins": "80"}}}, "num_mel_bins in"),
        ({"dataset_args": {"resample_rate": True}}, "sample rate True"),
        ({"dataset_args": [1]}, "no mapping"),
        ({"dataset_args": {"cmvn_args": [1]}}, "norm_var True"),
    ],
)
def test_refuses_other_settings(changes, match, tmp_path):
    write(tmp_path, **changes)
    with pytest.raises(ModelCardError, match=match):
        load_source(parse_spec(f"wespeaker:{tmp_path}"))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("model: CAMPPlus", "expected one of ResNet18"),
        ("model: ResNet18\nmodel_args: {pooling_func: MQMHASTP}", "pooling 'MQMHASTP'"),
        ("model: ResNet34", "does not fit the architecture"),
        ("[1, 2]", "no mapping"),
        ("a: [", "no YAML"),
        ("a: &x 1", "no anchors"),
    ],
)
def test_refuses_other_descriptions(config, match, tmp_path):
    write(tmp_path)
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ModelCardError, match=match):
        load_source(parse_spec(f"wespeaker:{tmp_path}"))


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (Evil(), "no file of weights alone"),
        ({"conv1.weight": "text"}, "no state dict"),
        ({}, "no state dict"),
        ({"conv1.weight": torch.full((32, 1, 3, 3), torch.nan)}, "not finite"),
    ],
)
def test_refuses_other_weights(content, match, tmp_path, capsys):
    write(tmp_path)
    torch.save(content, tmp_path / "avg_model.pt")
    with pytest.raises(ModelCardError, match=match):
        load_source(parse_spec(f"wespeaker:{tmp_path}"))
    assert "ran" not in capsys.readouterr().out


def test_refuses_bytes_that_are_no_weights_and_missing_files(tmp_path):
    write(tmp_path)
    (tmp_path / "avg_model.pt").write_bytes(b"no weights")
    with pytest.raises(ModelCardError, match="no file of weights"):
        load_source(parse_spec(f"wespeaker:{tmp_path}"))
    (tmp_path / "avg_model.pt").unlink()
    with pytest.raises(ModelCardError, match="cannot be read"):
        load_source(parse_spec(f"wespeaker:{tmp_path}"))


def test_refuses_an_option_that_there_is_not(tmp_path):
    write(tmp_path)
    with pytest.raises(ModelCardError, match="option 'windows'"):
        load_source(parse_spec(f"wespeaker:{tmp_path}?windows=povey"))
