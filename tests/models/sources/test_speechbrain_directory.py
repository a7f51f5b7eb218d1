"""Speaker models in SpeechBrain's layout, beside SpeechBrain's own reader of the same files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import LocalStrategy

from nip_audio import load_pretrained
from nip_audio.core.adapter import Batch
from nip_audio.errors import ModelCardError, NipAudioError, UnsafeYamlError
from nip_audio.models.sources.base import SourceModel, load_source, parse_spec
from tests.models.speechbrain_directories import (
    KINDS,
    LABELS,
    voices,
    write_directory,
    write_labels,
)
from tests.tolerance import assert_same_but_for_rounding, depth_of

LARGEST_DB = 100.0  # of the levels, which are mapped to [0, 1] and back before the network


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("speechbrain")
    return {kind: write_directory(kind, root / kind) for kind in KINDS}


@pytest.fixture
def ecapa(directories: dict[str, Path], tmp_path: Path) -> Path:
    """An ECAPA-TDNN of which a test may do what it likes."""
    return Path(shutil.copytree(directories["ecapa"], tmp_path / "ecapa"))


def load(directory: Path, *, trust: bool = False) -> SourceModel:
    return load_source(parse_spec(f"speechbrain:{directory}"), trust=trust)


def change(directory: Path, *pairs: tuple[str, str]) -> None:
    path = directory / "hyperparams.yaml"
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


# --- equal to SpeechBrain ---


def theirs(directory: Path, tmp_path: Path) -> EncoderClassifier:
    return EncoderClassifier.from_hparams(
        source=str(directory),
        savedir=str(tmp_path / "theirs"),
        local_strategy=LocalStrategy.SYMLINK,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equals_speechbrain(kind, directories, tmp_path):
    ours, expected = load(directories[kind]), theirs(directories[kind], tmp_path)
    wavs, _ = voices(4, 9000, seed=1)
    with torch.no_grad():
        embeddings = ours.model.embed(Batch(wavs))
        scores = ours.model.scores(Batch(wavs))
        torch.manual_seed(0)  # of the noise that x-vector's pooling adds
        their_embeddings = expected.encode_batch(wavs).reshape(4, -1)
        torch.manual_seed(0)
        their_scores, _, _, names = expected.classify_batch(wavs)
    depth = depth_of(ours.model)
    size = LARGEST_DB * float(their_embeddings.abs().max())
    assert_same_but_for_rounding(embeddings, their_embeddings, depth=depth, size=size)
    assert_same_but_for_rounding(scores, their_scores, depth=depth, size=LARGEST_DB)
    assert [ours.model.labels[i] for i in scores.argmax(dim=1)] == names
    assert ours.model.labels == LABELS


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_it_read(kind, directories):
    source = load(directories[kind])
    assert source.name == kind
    assert source.sample_rate_hz == 16000
    assert source.architecture.endswith(" of SpeechBrain")
    assert sorted(source.files) == [
        "classifier.ckpt",
        "embedding_model.ckpt",
        "hyperparams.yaml",
        "label_encoder.txt",
    ]
    assert not any(p.requires_grad for p in source.model.parameters())
    assert source.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_waveform(kind, directories):
    wavs, _ = voices(1, seed=2)
    wavs.requires_grad_()
    found = load(directories[kind]).model.embed(Batch(wavs)).square().sum()
    (gradient,) = torch.autograd.grad(found, wavs)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_matter(kind, directories):
    model = load(directories[kind]).model
    wavs = [voices(1, 9000, seed=3)[0][0], voices(1, 6000, seed=4)[0][0]]
    with torch.no_grad():
        together = model.embed(Batch.collate(wavs))
        alone = torch.cat([model.embed(Batch(wav[None])) for wav in wavs])
        size = LARGEST_DB * float(alone.abs().max())
        assert_same_but_for_rounding(together, alone, depth=depth_of(model), size=size)


def test_layers_of_a_resnet_are_observed_at_one_length(directories):
    model = load(directories["resnet"]).model
    wavs = [voices(1, 9000, seed=3)[0][0], voices(1, 6000, seed=4)[0][0]]
    with torch.no_grad():
        with model.tap("layer2") as tap:
            model.embed(Batch(wavs[0][None]))
        assert tap["layer2"].shape[:2] == (1, 8)
        with pytest.raises(ValueError, match="one by one"), model.tap("layer2"):
            model.embed(Batch.collate(wavs))


@pytest.mark.parametrize("kind", KINDS)
def test_loads_without_a_card(kind, directories):
    loaded = load_pretrained(directories[kind])
    assert 3 <= len(loaded.card.default_taps) <= 5
    wavs, _ = voices(2, seed=5)
    with loaded.model.tap(*loaded.card.default_taps) as tap:
        loaded.model.embed(Batch(wavs))
    assert all(len(tap[layer]) == 2 for layer in loaded.card.default_taps)


def test_statistics_of_all_recordings(ecapa, tmp_path):
    change(ecapa, ("norm_type: sentence", "norm_type: global"))
    torch.save(
        {"count": 3, "glob_mean": torch.linspace(-30, -10, 24), "glob_std": torch.ones(24)},
        ecapa / "mean_var_norm.ckpt",
    )
    old = "        label_encoder: !ref <label_encoder>\n"
    new = "        mean_var_norm: !ref <mean_var_norm>\n"
    path = "        mean_var_norm: !ref <pretrained_path>/mean_var_norm.ckpt\n"
    old_path = "        classifier: !ref <pretrained_path>/classifier.ckpt\n"
    change(ecapa, (old, old + new), (old_path, old_path + path))
    change(ecapa, (str(ecapa.parent.parent), str(ecapa.parent.parent)))
    text = (ecapa / "hyperparams.yaml").read_text()
    lines = [
        f"pretrained_path: {ecapa}" if line.startswith("pretrained_path") else line
        for line in text.splitlines()
    ]
    (ecapa / "hyperparams.yaml").write_text("\n".join(lines) + "\n")
    ours, expected = load(ecapa), theirs(ecapa, tmp_path)
    wavs, _ = voices(2, seed=6)
    with torch.no_grad():
        their_embeddings = expected.encode_batch(wavs)[:, 0]
        found = ours.model.embed(Batch(wavs))
    size = LARGEST_DB * float(their_embeddings.abs().max())
    assert_same_but_for_rounding(found, their_embeddings, depth=depth_of(ours.model), size=size)
    assert "mean_var_norm.ckpt" in ours.files


@pytest.mark.parametrize("name", ["classifier.ckpt", "label_encoder.txt"])
def test_verifies_without_a_classifier(name, ecapa):
    (ecapa / name).unlink()
    source = load(ecapa)
    assert source.model.labels == ()
    assert source.model.head is None
    assert "verifies and does not name" in source.notes[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_name_on_the_hub_is_found_in_the_cache(directories, tmp_path, monkeypatch):
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="the extra hub reads models of the hub"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0f99f2d0ebe89ac095bcc5903c4dd8f72b367286"
    root = tmp_path / "models--speechbrain--spkrec-xvect-voxceleb"
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for path in directories["xvector"].iterdir():
        shutil.copy(path, root / "blobs" / path.stem)
        (root / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{path.stem}")
    (root / "snapshots" / commit / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    source = load_source(parse_spec("speechbrain/spkrec-xvect-voxceleb"))
    assert source.name == "spkrec-xvect-voxceleb"
    assert source.licence == "apache-2.0"
    assert any(commit in note for note in source.notes)
    assert source.files == load(directories["xvector"]).files
    assert load_source(parse_spec(f"speechbrain/spkrec-xvect-voxceleb@{commit}")).files
    with pytest.raises(ModelCardError, match="not in the local cache"):
        load_source(parse_spec("speechbrain/spkrec-ecapa-voxceleb"))


# --- wrong directories ---


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path: Path, value: float) -> None:
    state = torch.load(path, weights_only=True)  # noqa: TID251 - a file of this test
    next(iter(state.values())).view(-1)[0] = value
    torch.save(state, path)


def repeat_without_end(path: Path) -> None:
    """One number that stands for more than any memory holds."""
    state = torch.load(path, weights_only=True)  # noqa: TID251 - a file of this test
    state[next(iter(state))] = torch.zeros(1).expand(1 << 44)
    torch.save(state, path)


def link_out(path: Path) -> None:
    shutil.move(path, path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WRONG_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "yaml missing": ("hyperparams.yaml", Path.unlink, "cannot be read"),
    "yaml empty": ("hyperparams.yaml", lambda p: p.write_text(""), "not a YAML mapping"),
    "yaml is bytes": ("hyperparams.yaml", lambda p: p.write_bytes(b"\xff\x00"), "not describe a"),
    "weights missing": ("embedding_model.ckpt", Path.unlink, "cannot be read"),
    "weights cut": ("embedding_model.ckpt", truncate, "no file of weights alone"),
    "weights empty": ("embedding_model.ckpt", lambda p: p.write_bytes(b""), "no file of weights"),
    "weights of words": ("embedding_model.ckpt", lambda p: torch.save("a", p), "no state dict"),
    "weights not finite": ("embedding_model.ckpt", lambda p: spoil(p, torch.nan), "not finite"),
    "classifier not finite": ("classifier.ckpt", lambda p: spoil(p, torch.inf), "not finite"),
    "weights without end": ("embedding_model.ckpt", repeat_without_end, "does not fit"),
    "link out": ("embedding_model.ckpt", link_out, "is a link to"),
    "fifo": ("embedding_model.ckpt", replace_by_fifo, "expected a file"),
    "device": ("embedding_model.ckpt", replace_by_device, "is a link to /dev/zero"),
    "folder": ("classifier.ckpt", replace_by_folder, "expected a file"),
    "fifo as labels": ("label_encoder.txt", replace_by_fifo, "expected a file"),
    "labels from 1": (
        "label_encoder.txt",
        lambda p: write_labels(LABELS, p.parent, first=1),
        "numbered from 0",
    ),
    "labels missing": (
        "label_encoder.txt",
        lambda p: write_labels(LABELS[:3], p.parent),
        "4 speakers and 3 labels",
    ),
    "labels in words": ("label_encoder.txt", lambda p: p.write_text("ann\nbob\n"), "numbered"),
    "label of code": (
        "label_encoder.txt",
        lambda p: p.write_text("__import__('os').getpid() => 0\n"),
        "numbered from 0",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_refuses_wrong_files(case, ecapa):
    name, spoiled, match = WRONG_FILES[case]
    spoiled(ecapa / name)
    with pytest.raises(ModelCardError, match=match) as caught:
        load(ecapa)
    assert str(ecapa) in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("name", ["embedding_model.ckpt", "classifier.ckpt"])
def test_refuses_weights_of_another_model(name, ecapa, directories):
    shutil.copy(directories["resnet" if name[0] == "e" else "xvector"] / name, ecapa)
    with pytest.raises(ModelCardError, match="use the files of one model"):
        load(ecapa)


@pytest.mark.parametrize("name", ["embedding_model.ckpt", "classifier.ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("trust", [True, False])
def test_a_pickle_with_code_leaves_no_trace(name, zipped, trust, ecapa, tmp_path):
    trap = {"weight": Trap(tmp_path / "trace")}
    torch.save(trap, ecapa / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelCardError, match="no file of weights alone"):
        load(ecapa, trust=trust)
    assert not (tmp_path / "trace").exists()
    torch.load(ecapa / name, weights_only=False)  # noqa: TID251 - the trap does work
    assert (tmp_path / "trace").exists()


UNSAFE = {
    "apply": ("std_norm: False", "std_norm: !apply:os.system [touch trace]"),
    "name": ("!new:speechbrain.lobes.features.Fbank", "!name:os.system"),
    "python": ("std_norm: False", "std_norm: !!python/object/apply:os.getpid []"),
    "python name": ("std_norm: False", "std_norm: !!python/name:os.system"),
    "module": ("std_norm: False", "std_norm: !module:os"),
    "include": ("std_norm: False", "std_norm: !include:other.yaml"),
    "copy": ("std_norm: False", "std_norm: !copy <n_mels>"),
    "tuple": ("std_norm: False", "std_norm: !tuple (1, 2)"),
    "other class": ("!new:speechbrain.lobes.features.Fbank", "!new:subprocess.Popen"),
    "class beside": ("lobes.models.ECAPA_TDNN.Classifier", "lobes.models.ECAPA_TDNN.TDNNBlock"),
    "product": ("input_size: !ref <n_mels>", "input_size: !ref <n_mels> * 2"),
    "item": ("input_size: !ref <n_mels>", "input_size: !ref <modules[embedding_model]>"),
    "text in brackets": ("std_norm: False", "std_norm: (os.getpid())"),
    "anchor": ("channels: [16, 16, 16, 16, 48]", "channels: &a [16, *a, 48]"),
    "large number": ("lin_neurons: 12", "lin_neurons: 1000000000"),
    "large number as a float": ("lin_neurons: 12", "lin_neurons: 1e9"),
    "large number as hex": ("lin_neurons: 12", "lin_neurons: 0x3B9ACA00"),
    "large number with lines": ("lin_neurons: 12", "lin_neurons: 1_000_000_000"),
    "number without end": ("lin_neurons: 12", f"lin_neurons: {'9' * 400}"),
    "brackets": ("channels: [16, 16, 16, 16, 48]", f"channels: {'[' * 300}{']' * 300}"),
    "many bytes": ("# Feature parameters", "#" * 70_000),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_refuses_yaml_that_is_more_than_a_description(case, ecapa, monkeypatch):
    monkeypatch.chdir(ecapa)
    change(ecapa, UNSAFE[case])
    with pytest.raises(UnsafeYamlError, match="adopt --trust-model"):
        load(ecapa)
    assert not (ecapa / "trace").exists()


SENSELESS = {
    "no network": ("embedding_model: !new", "other_model: !new", "no module 'embedding_model'"),
    "unknown argument": ("lin_neurons: 12", "lin_neuron: 12", "does not describe a model"),
    "lists of two sizes": ("dilations: [1, 2, 3, 4, 1]", "dilations: [1]", "not describe a model"),
    "too many values": ("[16, 16, 16, 16, 48]", "[999999, 999999, 16, 16, 999999]", "more than 5e"),
    "many values of 16 numbers": (
        "    channels: [16, 16, 16, 16, 48]",
        "    channels: [60000, 60000, 60000, 60000, 60000]",
        "more than 5e",
    ),
    "too many blocks": (
        "    input_size: 12\n",
        "    input_size: 12\n    lin_blocks: 1000000\n",
        "more than",
    ),
    "many bands": (
        "    n_mels: !ref <n_mels>\n\nmean",
        "    n_mels: 999999\n    n_fft: 999998\n\nmean",
        "more than 5e",
    ),
    "long transform": (
        "    n_mels: !ref <n_mels>\n\nmean",
        "    n_mels: !ref <n_mels>\n    n_fft: 400000\n\nmean",
        "expected at most 1000 and 16384",
    ),
    "short steps": (
        "    n_mels: !ref <n_mels>\n\nmean",
        "    n_mels: !ref <n_mels>\n    hop_length: 0.1\n\nmean",
        "expected at most 1000 and 16384",
    ),
    "low rate": (
        "    n_mels: !ref <n_mels>\n\nmean",
        "    n_mels: !ref <n_mels>\n    sample_rate: 100\n\nmean",
        "a model|sample rate of",
    ),
    "deltas": (
        "    n_mels: !ref <n_mels>\n\nmean",
        "    n_mels: !ref <n_mels>\n    deltas: True\n\nmean",
        "python:PACKAGE.MODULE:FACTORY|fit together",
    ),
    "no features": (
        "!new:speechbrain.lobes.features.Fbank\n    n_mels: !ref <n_mels>",
        "!new:torch.nn.Linear\n    in_features: 1\n    out_features: 24",
        "python:PACKAGE.MODULE:FACTORY|fit together",
    ),
    "classifier of another size": ("    input_size: 12", "    input_size: 13", "does not fit"),
    "statistics missing": ("norm_type: sentence", "norm_type: global", "mean_var_norm.ckpt"),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_refuses_senseless_descriptions(case, ecapa):
    old, new, match = SENSELESS[case]
    change(ecapa, (old, new))
    with pytest.raises(ModelCardError, match=match) as caught:
        load(ecapa)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    "statistics",
    [
        {"count": 1},
        {"count": 1, "glob_mean": 0.0, "glob_std": 1.0},
        {"count": 1, "glob_mean": torch.full((24,), torch.nan), "glob_std": torch.ones(24)},
        {"count": 1, "glob_mean": torch.zeros(1).expand(1 << 44), "glob_std": torch.ones(24)},
        [1, 2],
    ],
)
def test_refuses_wrong_statistics(statistics, ecapa):
    change(ecapa, ("norm_type: sentence", "norm_type: global"))
    torch.save(statistics, ecapa / "mean_var_norm.ckpt")
    with pytest.raises(ModelCardError, match="holds no statistics"):
        load(ecapa)


def test_classifier_of_other_embeddings(ecapa, directories):
    change(ecapa, ("    input_size: 12", "    input_size: 13"))
    torch.save({"weight": torch.ones(4, 13)}, ecapa / "classifier.ckpt")
    with pytest.raises(ModelCardError, match="do not fit together"):
        load(ecapa)


def test_no_directory(tmp_path):
    with pytest.raises(ModelCardError, match="is no directory"):
        load(tmp_path / "none")
    with pytest.raises(ModelCardError, match="expected none; leave it out"):
        load_source(parse_spec(f"speechbrain:{tmp_path}?rate=8000"))


# --- what the user trusts ---


OWN = """
import torch


class Own(torch.nn.Module):
    def __init__(self, bands, size):
        super().__init__()
        self.linear = torch.nn.Linear(bands, size)

    def forward(self, features, lengths=None):
        return self.linear(features).mean(1, keepdim=True)
"""


@pytest.fixture
def own(ecapa: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose network is a class of the user's."""
    (ecapa / "own_speaker_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(ecapa))
    text = (ecapa / "hyperparams.yaml").read_text()
    start, end = text.index("embedding_model:"), text.index("classifier:")
    network = "embedding_model: !new:own_speaker_network.Own\n    bands: 24\n    size: 12\n\n"
    (ecapa / "hyperparams.yaml").write_text(text[:start] + network + text[end:])
    state = {"linear.weight": torch.ones(12, 24), "linear.bias": torch.ones(12)}
    torch.save(state, ecapa / "embedding_model.ckpt")
    return ecapa


def test_a_class_of_the_user_loads_only_with_trust(own):
    with pytest.raises(UnsafeYamlError, match="own_speaker_network") as caught:
        load(own)
    assert f"adopt --trust-model 'speechbrain:{own}'" in str(caught.value)
    source = load(own, trust=True)
    assert source.architecture == "Own of SpeechBrain"
    assert any("no part of its identity" in note for note in source.notes)
    assert source.model.labels == LABELS


def test_layers_of_a_class_of_the_user_are_arranged(own):
    from nip_audio.models.adopted import adopt

    adopted = adopt(load(own, trust=True), parse_spec(str(own)), trusted=True)
    wavs, _ = voices(2, 9000, seed=7)
    with adopted.model.tap("linear") as tap:
        adopted.model.embed(Batch(wavs))
    assert tap["linear"].shape[:2] == (2, 12)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("own_speaker_network.Own", "own_speaker_network.Other"),
        ("own_speaker_network.Own", "no_such_module.Own"),
        ("bands: 24", "bands: many"),
        ("bands: 24", "bands: !ref <nothing>"),
        ("modules:\n", "modules: 5\nothers:\n"),
        ("std_norm: False", "std_norm: [1"),
    ],
)
def test_trusted_directories_fail_with_one_error(old, new, own):
    change(own, (old, new))
    with pytest.raises(NipAudioError) as caught:
        load(own, trust=True)
    assert isinstance(caught.value, ModelCardError)
