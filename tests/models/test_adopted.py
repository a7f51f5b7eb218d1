"""Cards of models of any origin: what is written, found again, and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nip_audio import load_pretrained
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import HashMismatchError, InputError, ModelCardError, OutputError
from nip_audio.models.adopted import adopt, attach_companion, has_gradient, probe
from nip_audio.models.cards import read_card
from nip_audio.models.sources.base import SourceModel, SourceSpec, load_source, parse_spec
from nip_audio.models.sources.layers import find_layers_of
from nip_audio.models.sources.waveforms import waveform_model
from nip_audio.workflows.adopt import MOVES, adopt_model, choose_noises, examine
from tests.models.speechbrain_directories import write_directory

RATE_HZ = 16000
FILES = ["classifier.ckpt", "embedding_model.ckpt", "hyperparams.yaml", "label_encoder.txt"]


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "account"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory("ecapa", tmp_path_factory.mktemp("original") / "ecapa")


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A model of which a test may do what it likes."""
    return Path(shutil.copytree(original, tmp_path / "ecapa"))


# --- cards ---


def test_a_card_is_written_and_loaded(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = adopt_model("./ecapa", Path("card"))
    data = json.loads((tmp_path / "card" / "model_card.json").read_text())
    assert data == dict(made.card.data)
    assert data["source"] == f"speechbrain:{source}"
    assert sorted(data["files"]) == FILES
    assert data["embedding_size"] == 12
    assert data["labels"] == list(load_source(parse_spec(str(source))).model.labels)
    assert set(data["default_taps"]) <= {*made.card.default_taps}
    assert data["noises"] == []
    assert data["examination"]["noises_from"] == 0
    assert not data["trusted"]
    assert made.trusted_in is None
    monkeypatch.chdir("/")
    loaded = load_pretrained(tmp_path / "card")
    assert loaded.model_id == made.card.model_id == load_pretrained(source).model_id
    with torch.no_grad():
        wavs = probe(RATE_HZ, 1.0)
        assert torch.equal(
            loaded.model.embed(Batch(wavs)), load_pretrained(source).model.embed(Batch(wavs))
        )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_changed_byte_of_any_file_is_seen(name, place, source, tmp_path):
    adopt_model(str(source), tmp_path / "card")
    data = bytearray((source / name).read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    (source / name).write_bytes(bytes(data))
    with pytest.raises(HashMismatchError, match=name) as caught:
        load_pretrained(tmp_path / "card")
    assert "adopt and calibrate it again" in str(caught.value)


def test_a_missing_file_is_seen(source, tmp_path):
    adopt_model(str(source), tmp_path / "card")
    (source / "classifier.ckpt").unlink()
    with pytest.raises(HashMismatchError, match=r"classifier\.ckpt"):
        load_pretrained(tmp_path / "card")
    shutil.rmtree(source)
    with pytest.raises(ModelCardError, match="is no directory"):
        load_pretrained(tmp_path / "card")


@pytest.mark.parametrize("text", ["nothing:here", "model", "speechbrain", "onnx:"])
def test_a_card_of_no_source_is_refused(text, source, tmp_path):
    adopt_model(str(source), tmp_path / "card")
    path = tmp_path / "card" / "model_card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": text}))
    with pytest.raises(ModelCardError):
        load_pretrained(tmp_path / "card")


@pytest.mark.parametrize(
    "changed",
    [
        {"tap_axes": ["blocks.0"]},
        {"tap_axes": {"blocks.0": "1"}},
        {"tap_axes": {"blocks.0": -3}},
        {"noises": {"rms": 1}},
        {"noises": [{"family": "gaussian"}]},
        {"noises": [{"family": "gaussian", "level": "raw", "scale": "loud"}]},
        {"channels": "two"},
        {"files": {"hyperparams.yaml": 1}},
        {"source": ["python:a:b"]},
        {"modality": "image", "image_shape": [1, 8, 8]},
    ],
)
def test_a_malformed_card_has_one_error(changed, source, tmp_path):
    adopt_model(str(source), tmp_path / "card")
    path = tmp_path / "card" / "model_card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ModelCardError, match="model_card"):
        load_pretrained(tmp_path / "card")


def test_an_existing_card_is_kept_unless_forced(source, tmp_path):
    adopt_model(str(source), tmp_path / "card", name="first")
    with pytest.raises(OutputError, match="force"):
        adopt_model(str(source), tmp_path / "card", name="second")
    assert load_pretrained(tmp_path / "card").card.name == "first"
    adopt_model(str(source), tmp_path / "card", name="second", force=True)
    assert load_pretrained(tmp_path / "card").card.name == "second"


def test_a_file_in_the_place_of_the_directory_has_a_remedy(source, tmp_path):
    (tmp_path / "card").write_text("")
    with pytest.raises(OutputError, match="card"):
        adopt_model(str(source), tmp_path / "card")


def test_no_source_is_an_error_with_the_forms(tmp_path):
    with pytest.raises(ModelCardError, match="onnx:FILE"):
        adopt_model("nothing", tmp_path / "card")
    assert not (tmp_path / "card").exists()


# --- layers ---


class Windowed(nn.Module):
    """A network of windows: an item becomes several rows of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = nn.Identity()
        self.lstm = nn.LSTM(64, 9, batch_first=True)
        self.linear = nn.Linear(9, 10)
        self.output = nn.Identity()

    def forward(self, wavs: Tensor) -> Tensor:
        frames = nn.functional.pad(wavs, (0, -wavs.shape[1] % 1024)).unflatten(1, (-1, 16, 64))
        rows = self.windows(frames.flatten(0, 1))  # (B · W, 16, 64)
        states = self.lstm(rows)[0]
        each = self.linear(states[:, -1]).unflatten(0, (len(wavs), -1)).tanh()
        return self.output(each.mean(1))


class ChannelsLast(nn.Module):
    """Layers that return (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 11)
        self.norm = nn.LayerNorm(11)
        self.shared = nn.Linear(11, 11)
        self.output = nn.Identity()

    def forward(self, wavs: Tensor) -> Tensor:
        frames = nn.functional.pad(wavs, (0, -wavs.shape[1] % 64)).unflatten(1, (-1, 64))
        x = self.norm(self.first(frames).tanh())
        return self.output(self.shared(self.shared(x).tanh()).mean(1))


class BlackBox(nn.Module):
    """A network whose inside is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 64 * 9).reshape(64, 9))

    def forward(self, wavs: Tensor) -> Tensor:
        frames = nn.functional.pad(wavs, (0, -wavs.shape[1] % 64)).unflatten(1, (-1, 64))
        return (frames @ self.weight).tanh().mean(1)


class OfABatch(ChannelsLast):
    """Items influence each other."""

    def forward(self, wavs: Tensor) -> Tensor:
        return super().forward(wavs - wavs.mean(0, keepdim=True))


def wrapped(net: nn.Module) -> InstrumentedModel:
    """Wrap a network of waveforms after giving it weights that let its input through."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.dim() > 1 and not isinstance(net, BlackBox):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return waveform_model(net.eval().requires_grad_(False), sample_rate_hz=RATE_HZ)


def adopted(net: nn.Module) -> InstrumentedModel:
    """A wrapped network whose layers were found."""
    made = SourceModel(wrapped(net), "net", RATE_HZ, {"weights": "0"})
    return adopt(made, SourceSpec("python", "a:b")).model


def find(net: nn.Module) -> dict[str, int]:
    """Return the axis of the channels of each layer that is found."""
    found = find_layers_of(wrapped(net), probe(RATE_HZ, 2.0), probe(RATE_HZ, 1.37))
    assert set(found.chosen) <= set(found.names)
    return {name.removeprefix("module."): found.axes.get(name, 1) for name in found.names}


def test_layers_of_windows_are_folded_into_items():
    found = find(Windowed())
    assert found["lstm"] == 2
    assert found["linear"] == 1
    model = adopted(Windowed())
    wavs = probe(RATE_HZ, 1.0)
    windows = -(-model.to_input(Batch(wavs)).x.shape[-1] // 8)
    with torch.no_grad(), model.tap("module.lstm", "module.linear", "module.output") as tap:
        embeddings = model.embed(Batch(wavs))
    assert tap["module.lstm"].shape[:2] == (2, 9)
    assert tap["module.lstm"].shape[3] == 16
    assert tap["module.lstm"].shape[2] in {windows - 1, windows}
    assert tap["module.linear"].shape[:2] == (2, 10)
    assert torch.equal(tap["module.output"], embeddings)
    # the windows of an item are its own
    with torch.no_grad(), model.tap("module.linear") as alone:
        model.embed(Batch(wavs[1:]))
    torch.testing.assert_close(tap["module.linear"][1:], alone["module.linear"])
    torch.testing.assert_close(tap["module.linear"].tanh().mean(2), embeddings)


def test_layers_with_their_channels_last_are_arranged():
    found = find(ChannelsLast())
    assert found["first"] == found["norm"] == 2
    model = adopted(ChannelsLast())
    with torch.no_grad(), model.tap("module.first") as tap:
        model.embed(Batch(probe(RATE_HZ, 1.0)))
    assert tap["module.first"].shape[:2] == (2, 11)


def test_layers_that_run_twice_are_left_out():
    assert "shared" not in find(ChannelsLast())


def test_a_black_box_has_its_output_alone():
    assert find(BlackBox()) == {"output": 1}


def test_layers_of_items_that_influence_each_other_are_left_out():
    with pytest.raises(ModelCardError, match="no layer that can be measured"):
        find(OfABatch())


def test_a_network_with_a_part_called_embedding_model_is_like_any_other():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding_model = ChannelsLast()

        def forward(self, wavs: Tensor) -> Tensor:
            return self.embedding_model(wavs)

    outer = wrapped(Outer())

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding_model = outer.network

        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
            return self.embedding_model(x, lengths)

    model = InstrumentedModel(
        Network(),
        front_end=outer.front_end,
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 1.0),
        output_kind="cosine",
    ).eval()
    found = find_layers_of(model, probe(RATE_HZ, 2.0), probe(RATE_HZ, 1.37))
    with model.tap(*found.names) as tap:
        model.embed(Batch(probe(RATE_HZ, 1.0)))
    assert all(len(tap[name]) == 2 for name in found.names)


@pytest.mark.parametrize(
    ("net", "layer"),
    [(Windowed, "module.lstm"), (Windowed, "module.linear"), (ChannelsLast, "module.norm")],
)
def test_gradients_of_arranged_layers_equal_finite_differences(net, layer):
    model = adopted(net()).double()
    wavs = probe(RATE_HZ, 0.25).double()
    direction = torch.randn(2, 1, generator=torch.Generator().manual_seed(1)).double()
    with model.tap(layer) as tap:
        x = model.to_input(Batch(wavs))
        value = (model.embed_input(x).sum(1, keepdim=True) * direction).sum()
        # weights do not ask for gradients, so the input does
        assert not value.requires_grad
    inputs = x.x.clone().requires_grad_()
    with torch.enable_grad(), model.tap(layer) as tap:
        value = (model.network(inputs, None).sum(1, keepdim=True) * direction).sum()
        (gradient,) = torch.autograd.grad(value, tap[layer])
    axis = model.network.tap_axes[layer]
    seen = tap[layer].detach()
    generator = torch.Generator().manual_seed(2)
    step = torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    module = model.network.get_submodule(layer)

    def moved(size: float) -> float:
        """The value when the layer's output is moved along the step, arranged as it was seen."""

        def hook(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            first = output[0] if isinstance(output, tuple) else output
            rows = len(first) // 2
            back = step if rows == 1 else step.movedim(2, 1).flatten(0, 1)
            first = first + size * back.movedim(1, axis)
            return (first, *output[1:]) if isinstance(output, tuple) else first

        handle = module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                scores = model.network(x.x, None).sum(1, keepdim=True)
        finally:
            handle.remove()
        return float((scores * direction).sum())

    size = 1e-5
    slope = (moved(size) - moved(-size)) / (2 * size)
    expected = float((gradient * step).sum())
    assert abs(expected) > 1e-3
    # the error of a central difference is of the order of the step squared
    assert slope == pytest.approx(expected, rel=1e-5)


# --- what is measured ---


def test_noises_move_the_median_embedding_by_what_was_wanted(source):
    model = load_source(parse_spec(str(source))).model
    clips = [wav for k in range(5) for wav in probe(RATE_HZ, 1.0 + 0.1 * k)]
    noises = choose_noises(model, clips)
    assert len(noises) == len(MOVES)
    generator = torch.Generator().manual_seed(5)
    for noise, wanted in zip(noises, MOVES, strict=True):
        assert (noise.family, noise.level) == ("gaussian", "raw")
        moved = []
        for clip in clips:
            other = (clip + noise.scale * torch.randn(clip.shape, generator=generator)).clamp(-1, 1)
            with torch.no_grad():
                both = model.embed(Batch(torch.stack([clip, other])))
            moved.append(1 - float(torch.cosine_similarity(both[:1], both[1:])))
        median = float(torch.tensor(moved).median())
        # another draw of noise on ten clips moves the median by some tens of per cent
        assert wanted / 2 < median < wanted * 2


def test_noises_outside_what_is_tried_are_moved_to_its_ends():
    class Deaf(nn.Module):
        def forward(self, wavs: Tensor) -> Tensor:
            return wavs.new_ones(len(wavs), 8) + 0 * wavs[:, :8]

    model = wrapped(Deaf())
    (noise,) = choose_noises(model, [probe(RATE_HZ, 1.0)[0]])
    assert noise.scale == 0.2


def test_examination_tells_what_works(source):
    spec = parse_spec(str(source))
    seen = examine(adopt(load_source(spec), spec))
    assert seen.repeats == 0
    assert seen.batch < 1e-4
    assert seen.embedding_size == 12
    assert seen.differentiable
    assert seen.layers > 5
    assert {what: works for what, works, _ in seen.findings()}["attack: white box"]


@pytest.mark.parametrize(("slope", "reaches"), [(1.0, True), (0.0, False)])
def test_the_gradient_of_embeddings_of_unit_length_is_found(slope, reaches):
    """Their squared norm is 1 whatever the input, so that its gradient says nothing."""

    class OfUnitLength(nn.Module):
        def forward(self, wavs: Tensor) -> Tensor:
            return nn.functional.normalize(1 + slope * wavs[:, :8], dim=1)

    assert has_gradient(wrapped(OfUnitLength()), RATE_HZ) is reaches


def test_too_few_clean_recordings_are_refused(source, tmp_path, write_sound):
    files = [write_sound(f"a{i}.wav") for i in range(7)]
    with pytest.raises(InputError, match="7 of 7 clean recordings"):
        adopt_model(str(source), tmp_path / "card", clean=files)
    assert not (tmp_path / "card").exists()


def test_noises_of_a_card_are_those_of_the_detector(source, tmp_path, clean_folder):
    from nip_audio.screening.measure import default_config

    made = adopt_model(str(source), tmp_path / "card", clean=sorted(clean_folder.rglob("*.wav")))
    config = default_config(load_pretrained(tmp_path / "card"))
    assert [noise.scale for noise in config.noises] == [
        n["scale"] for n in made.card.data["noises"]
    ]
    assert made.examination.noises_from == 24


class Broken(nn.Module):
    def __init__(self, out: str) -> None:
        super().__init__()
        self.output = nn.Identity()
        self.out = out

    def forward(self, wavs: Tensor) -> Tensor:
        if self.out == "fails":
            raise RuntimeError("first line\nsecond line")
        value = torch.nan if self.out == "nan" else 1.0
        return self.output(value * wavs[:, : 8 if self.out != "frames" else None])


@pytest.mark.parametrize(
    ("out", "match"), [("fails", r"cannot embed .*\(first line\)"), ("nan", "not finite")]
)
def test_models_that_do_not_embed_are_refused(out, match):
    made = SourceModel(wrapped(Broken(out)), "net", RATE_HZ, {"weights": "0"})
    with pytest.raises(ModelCardError, match=match):
        adopt(made, SourceSpec("python", "a:b"))


# --- what is fitted to a model, beside its card ---


def test_a_companion_leaves_what_was_named_meanwhile(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "card"
    card = adopt_model(str(source), out).card
    for kind in ("calibration", "purifier"):  # both hold the card that was read before
        (out / kind).write_bytes(kind.encode())
        assert attach_companion(card, kind, out / kind)
    now = read_card(out)
    assert now.calibration_path == out / "calibration"
    assert now.purifier_path == out / "purifier"


def test_a_companion_of_a_model_that_was_replaced_is_not_named(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "card"
    card = adopt_model(str(source), out).card
    other = write_directory("xvector", tmp_path / "xvector")
    adopt_model(str(other), out, force=True)
    (out / "purifier").write_bytes(b"of the first")
    assert not attach_companion(card, "purifier", out / "purifier")
    assert read_card(out).purifier_path is None


def test_trust_that_is_not_needed_is_not_remembered(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    made = adopt_model(str(source), tmp_path / "card", trust=True)
    assert made.trusted_in is None
    assert made.card.data["trusted"] is False
    assert not (tmp_path / "settings").exists()
