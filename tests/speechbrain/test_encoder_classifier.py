"""Pretrained directories read by SpeechBrain and by the toolkit: the same numbers both ways."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.utils.fetching import FetchFrom, FetchSource
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.errors import HashMismatchError, InputError, ModelCardError
from nip_audio.models.pretrained import load_pretrained
from nip_audio.speechbrain.encoder_classifier import (
    Embedding,
    SafetensorsPretrainer,
    as_encoder_classifier,
    load_labels,
    load_safetensors,
    speechbrain_section,
)
from tests.tolerance import assert_same_but_for_rounding, depth_of

LABELS = ["ann", "bob", "cyd"]
COSINE = "speechbrain.lobes.models.ECAPA_TDNN.Classifier\n  input_size: 6\n  out_neurons: 3\n"
DENSE = "torch.nn.Linear\n  in_features: {}\n  out_features: 3\n"
# bands, network and classifier
ARCHITECTURES = {
    "xvector": (40, "xvector.Xvector\n  channels: [8, 8, 8, 8, 12]\n  embedding_dim: 6\n", COSINE),
    "resnet34": (20, "resnet34.ResNet34\n  width: 4\n", DENSE.format(32)),
    "deep_speaker": (
        20,
        "deep_speaker.DeepSpeaker\n  n_mels: 20\n  channels: [4, 6]\n  embedding_dim: 6\n",
        DENSE.format(6),
    ),
    "audionet": (32, "audionet.AudioNet\n  n_mels: 32\n", DENSE.format(32)),
}


def describe(architecture: str, rate_hz: int = 16000) -> str:
    bands, network, classifier = ARCHITECTURES[architecture]
    return (
        f"compute_features: !new:nip_audio.audio.features.LogMel\n  n_mels: {bands}\n"
        f"  sample_rate_hz: {rate_hz}\n"
        f"embedding_model: !new:nip_audio.models.{network}"
        f"classifier: !new:{classifier}"
    )


def randomise(module: nn.Module) -> None:
    """Give every parameter and buffer a value at which a mistake shows."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(0.5 + 0.2 * noise.abs() if "var" in name else 0.4 * noise)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(architecture: str = "xvector", *, rate_hz: int = 16000, **card: Any) -> Path:
        folder = tmp_path / architecture
        folder.mkdir()
        text = describe(architecture, rate_hz)
        parts = (
            ["embedding_model", "classifier"] if card.get("labels") != [] else ["embedding_model"]
        )
        if "classifier" not in parts:
            text = text[: text.index("classifier")]
        hparams = load_hyperpyyaml(text)
        for part in parts:
            randomise(hparams[part])
            save_file(hparams[part].state_dict(), folder / f"{part}.safetensors")
        section = speechbrain_section(["compute_features", *parts])
        (folder / "hyperparams.yaml").write_text(text + section)
        data = {
            "format_version": 1,
            "name": architecture,
            "sample_rate_hz": rate_hz,
            "output_kind": "cosine" if architecture == "xvector" else "logits",
            "scale": 1.0,
            "labels": LABELS,
            "default_taps": [],
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()},
            "calibration": None,
            "training": {},
            "metrics": {},
        } | card
        (folder / "model_card.json").write_text(json.dumps(data))
        return folder

    return make


def waveforms(items: int, samples: int, seed: int = 1) -> Tensor:
    """Chirps from low to high, each item its own: noise would look alike to every network."""
    generator = torch.Generator().manual_seed(seed)
    rates = torch.rand(items, 1, generator=generator) * 0.8 + 0.1
    time = torch.arange(samples) / 16000
    chirps = 0.5 * torch.sin(2 * torch.pi * 3000 * rates * time.sqrt() * time)
    return chirps + 0.01 * torch.randn(items, samples, generator=generator)


def pad(*wavs: Tensor) -> tuple[Batch, Tensor]:
    """Collate (N,) waveforms, and return the relative lengths too."""
    batch = Batch.collate(list(wavs))
    assert batch.lengths is not None
    return batch, batch.lengths / batch.x.shape[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_speechbrain_loads_what_the_toolkit_loads(make_folder, tmp_path, architecture):
    folder = make_folder(architecture)
    ours = load_pretrained(folder).model
    theirs = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "saved"))
    wavs = waveforms(8, 16000)
    scores, best, index, text = theirs.classify_batch(wavs)
    expected = ours.scores(Batch(wavs))
    depth = depth_of(ours)
    # theirs averages by a mask of lengths, ours without
    assert_same_but_for_rounding(scores, expected, depth=depth)
    assert_same_but_for_rounding(best, expected.amax(dim=1), depth=depth)
    assert text == [ours.labels[i] for i in ours.predict(Batch(wavs))]
    assert torch.equal(index, ours.predict(Batch(wavs)))
    embeddings = theirs.encode_batch(wavs)
    assert_same_but_for_rounding(embeddings[:, 0], ours.embed(Batch(wavs)), depth=depth)
    assert embeddings.shape[1] == 1
    # random weights, but not a network that says the same of everything
    assert float(expected.std(dim=0).max()) > 1e-4


def test_speaker_recognition_compares_the_toolkits_embeddings(make_folder):
    folder = make_folder()
    ours = load_pretrained(folder).model
    theirs = SpeakerRecognition.from_hparams(source=str(folder))
    first, second = waveforms(2, 16000), waveforms(2, 8000, seed=2)
    score, _ = theirs.verify_batch(first, second)
    expected = torch.cosine_similarity(ours.embed(Batch(first)), ours.embed(Batch(second)))
    assert_same_but_for_rounding(score[:, 0], expected, depth=depth_of(ours), size=1.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_padded_batch_equals_its_single_items(make_folder, architecture):
    theirs = EncoderClassifier.from_hparams(source=str(make_folder(architecture)))
    wavs = [waveforms(1, samples)[0] for samples in (16000, 7123, 12000)]
    batch, relative = pad(*wavs)
    together = theirs.encode_batch(batch.x, relative)
    for wav, embedding in zip(wavs, together, strict=True):
        alone = theirs.encode_batch(wav)[0]
        assert_same_but_for_rounding(embedding, alone, depth=depth_of(theirs.mods))


class Lengths(nn.Module):
    """A network that returns the lengths it is given."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.x = x
        return lengths[:, None]


@pytest.mark.parametrize("whole_hops", [True, False])
def test_frames_are_those_of_the_front_end_or_one_less(whole_hops):
    generator = torch.Generator().manual_seed(0)
    for longest in torch.randint(400, 480000, (300,), generator=generator).tolist():
        longest = longest // 160 * 160 if whole_hops else longest
        samples = torch.randint(1, longest + 1, (50,), generator=generator)
        samples[0] = longest
        features = torch.zeros(1, 1 + longest // 160, 1).expand(50, -1, -1)
        frames = Embedding(Lengths())(features, samples / longest)[:, 0, 0]
        short = 1 + samples // 160 - frames
        assert short[0] == 0
        assert set(short.tolist()) <= ({0} if whole_hops else {0, 1})


def test_what_lies_behind_an_item_is_hidden_from_the_network():
    network = Lengths()
    frames = Embedding(network)(torch.ones(3, 11, 2), torch.tensor([1.0, 0.5, 0.0]))
    assert frames.tolist() == [[[11]], [[6]], [[1]]]
    assert network.x.sum(dim=(1, 2)).tolist() == [22.0, 12.0, 2.0]
    assert Embedding(network)(torch.ones(2, 11, 2)).tolist() == [[[11]], [[11]]]


@pytest.mark.parametrize("place", ["without", "elsewhere", "the source"])
def test_the_source_folder_stays_as_it_is(make_folder, tmp_path, monkeypatch, place):
    folder = make_folder()
    monkeypatch.chdir(tmp_path)
    saved = {"without": None, "elsewhere": tmp_path / "saved", "the source": folder}[place]
    before = {p.name: p.lstat().st_mtime_ns for p in folder.iterdir()}
    for source in (str(folder), folder, FetchSource(FetchFrom.LOCAL, str(folder))):
        theirs = EncoderClassifier.from_hparams(source=source, savedir=saved)
        assert theirs.classify_batch(waveforms(1, 8000))[0].shape == (1, 3)
    assert {p.name: p.lstat().st_mtime_ns for p in folder.iterdir()} == before
    assert os.listdir(tmp_path) == [folder.name] or place == "elsewhere"
    if place == "elsewhere":
        assert {p.name for p in saved.iterdir()} == set(before)
        assert all(p.is_symlink() for p in saved.iterdir())


def test_files_are_read_at_the_models_own_rate(make_folder, write_sound):
    theirs = EncoderClassifier.from_hparams(source=str(make_folder(rate_hz=8000)))
    path = write_sound(rate_hz=16000)
    assert theirs.load_audio(str(path)).shape == (8000,)
    assert theirs.classify_file(str(path))[3][0] in LABELS


def test_model_without_classifier_embeds(make_folder):
    folder = make_folder(labels=[])
    theirs = EncoderClassifier.from_hparams(source=str(folder))
    wavs = waveforms(2, 8000)
    ours = load_pretrained(folder)
    expected, depth = ours.model.embed(Batch(wavs)), depth_of(ours.model)
    assert_same_but_for_rounding(theirs.encode_batch(wavs)[:, 0], expected, depth=depth)
    assert "classifier" not in theirs.mods
    bare = as_encoder_classifier(ours).encode_batch(wavs)[:, 0]
    assert_same_but_for_rounding(bare, expected, depth=depth)


@pytest.mark.parametrize("name", ["embedding_model", "classifier"])
def test_changed_weights_are_noticed(make_folder, name):
    path = make_folder() / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HashMismatchError, match=f"{name}.safetensors has SHA-256"):
        EncoderClassifier.from_hparams(source=str(path.parent))


def test_weights_that_the_card_does_not_list_are_refused(make_folder):
    folder = make_folder()
    (folder / "other.safetensors").write_bytes(b"")
    with pytest.raises(ModelCardError, match="does not list other.safetensors"):
        load_safetensors(nn.Linear(1, 1), folder / "other.safetensors")


def test_weights_must_fit(make_folder):
    with pytest.raises(ModelCardError, match="classifier.safetensors does not fit"):
        load_safetensors(nn.Linear(1, 1), make_folder() / "classifier.safetensors")


def test_labels_keep_the_cards_order(make_folder):
    encoder = CategoricalEncoder()
    load_labels(encoder, make_folder(labels=["zoe", "ann", "bob"]) / "model_card.json")
    assert encoder.decode_torch(torch.tensor([0, 1, 2])) == ["zoe", "ann", "bob"]


def test_label_given_twice_is_an_error(make_folder):
    folder = make_folder(labels=["ann", "bob", "ann"])
    with pytest.raises(ModelCardError, match="a label is given twice"):
        load_labels(CategoricalEncoder(), folder / "model_card.json")


def test_nothing_is_collected_from_nowhere():
    with pytest.raises(InputError, match="no source to collect from"):
        SafetensorsPretrainer({}).collect_files()


@pytest.mark.parametrize("names", [["embedding_model"], ["compute_features", "x"], []])
def test_section_needs_its_parts(names):
    with pytest.raises(InputError, match="got parts .*the last may be left out"):
        speechbrain_section(names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loaded_model_becomes_speechbrains_without_its_yaml(make_folder, tmp_path, architecture):
    folder, mark = make_folder(architecture), tmp_path / "MARK"
    # what from_hparams would run
    path = folder / "hyperparams.yaml"
    text = f"{describe(architecture)}modules: !apply:os.system ['touch {mark}']\n"
    path.write_text(text)
    card = json.loads((folder / "model_card.json").read_text())
    card["files"][path.name] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "model_card.json").write_text(json.dumps(card))
    loaded = load_pretrained(folder)
    theirs = as_encoder_classifier(loaded)
    wavs = waveforms(2, 16000)
    scores, _, index, labels = theirs.classify_batch(wavs)
    expected = loaded.model.scores(Batch(wavs))
    assert_same_but_for_rounding(scores, expected, depth=depth_of(loaded.model))
    assert labels == [LABELS[i] for i in index]
    torch.testing.assert_close(
        theirs.verify_batch(wavs[:1], wavs[:1])[0], torch.ones(1, 1), atol=1e-5, rtol=0
    )
    assert theirs.audio_normalizer.sample_rate == 16000
    assert not mark.exists()


def test_speechbrain_gives_waveforms(make_folder):
    loaded = load_pretrained(make_folder())
    loaded.model.front_end = None
    with pytest.raises(InputError, match="has no front end, but SpeechBrain gives waveforms"):
        as_encoder_classifier(loaded)
