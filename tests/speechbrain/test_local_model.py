"""SpeechBrain's own directories: small ones, written here as its recipes write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from nip_audio.errors import HashMismatchError, InputError, ModelCardError, OutputError
from nip_audio.speechbrain.local_model import load_trusted, write_card

YAML = """
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 24
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 24
    channels: [16, 16, 16, 16, 24]
    attention_channels: 8
    se_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 4
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
"""


@pytest.fixture
def theirs(make_speechbrain):
    return make_speechbrain("ecapa")


@pytest.fixture
def folder(theirs, tmp_path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("embedding_model", "classifier"):
        torch.save(theirs.mods[name].state_dict(), folder / f"{name}.ckpt")
    theirs.hparams.label_encoder.save(folder / "label_encoder.ckpt")
    (folder / "hyperparams.yaml").write_text(YAML)
    return folder


@pytest.fixture
def card(folder, tmp_path) -> Path:
    write_card(folder, tmp_path / "card.json")
    return tmp_path / "card.json"


def test_what_matches_the_card_is_loaded(folder, card, theirs, waveforms, no_network):
    loaded = load_trusted(folder, card, run_opts={"device": "cpu"})
    assert type(loaded) is EncoderClassifier
    wavs = waveforms(2, 8000)
    got, expected = loaded.classify_batch(wavs), theirs.classify_batch(wavs)
    torch.testing.assert_close(got[0], expected[0])
    assert got[3] == expected[3]
    assert set(json.loads(card.read_text())["files"]) == {p.name for p in folder.iterdir()}
    other = load_trusted(folder, card, interface=SpeakerRecognition)
    torch.testing.assert_close(
        other.verify_batch(wavs[:1], wavs[:1])[0], torch.ones(1, 1), atol=1e-5, rtol=0
    )


def test_nothing_of_a_changed_directory_is_run(folder, card, tmp_path):
    mark = tmp_path / "MARK"
    with (folder / "hyperparams.yaml").open("a") as file:
        file.write(f"x: !apply:os.system ['touch {mark}']\n")
    with pytest.raises(HashMismatchError, match=r"hyperparams.yaml has SHA-256 .*; the file was"):
        load_trusted(folder, card)
    assert not mark.exists()


def test_more_or_less_than_the_card_lists_is_refused(folder, card):
    (folder / "custom.py").write_text("")
    with pytest.raises(ModelCardError, match=r"holds custom\.py that .* does not list, and lacks"):
        load_trusted(folder, card)
    (folder / "custom.py").unlink()
    (folder / "classifier.ckpt").unlink()
    with pytest.raises(ModelCardError, match=r"lacks classifier\.ckpt"):
        load_trusted(folder, card)


HUB = "    paths:\n        classifier: speechbrain/spkrec-ecapa-voxceleb/{}\n"


def test_a_yaml_that_names_the_hub_gets_what_is_here(folder, card, theirs, waveforms, no_network):
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text() + HUB.format("classifier.ckpt"))
    write_card(folder, card, force=True)
    wavs = waveforms(2, 8000)
    got = load_trusted(folder, card).classify_batch(wavs)
    torch.testing.assert_close(got[0], theirs.classify_batch(wavs)[0])


def test_weights_that_are_not_here_are_not_fetched(folder, card, no_network):
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text() + HUB.format("other.ckpt"))
    write_card(folder, card, force=True)
    with pytest.raises(ModelCardError, match=r"loads classifier from other\.ckpt, which the dir"):
        load_trusted(folder, card)
    path.write_text("a: 1\n")
    write_card(folder, card, force=True)
    with pytest.raises(ModelCardError, match="lacks modules and pretrainer"):
        load_trusted(folder, card)


def test_links_and_folders_are_refused(folder, card):
    (folder / "sub").mkdir()
    with pytest.raises(InputError, match="holds sub, expected plain files only"):
        load_trusted(folder, card)
    (folder / "sub").rmdir()
    (folder / "link").symlink_to(card)
    with pytest.raises(InputError, match="holds link, expected plain files only"):
        write_card(folder, card, force=True)


def test_the_card_lies_elsewhere(folder, card):
    with pytest.raises(InputError, match="lies in the directory that it is to vouch for"):
        write_card(folder, folder / "card.json")
    with pytest.raises(InputError, match="lies in the directory that it is to vouch for"):
        load_trusted(folder, folder / "card.json")
    with pytest.raises(OutputError, match="exists"):
        write_card(folder, card)


def test_a_name_of_the_hub_is_no_folder(card):
    with pytest.raises(InputError, match="is no folder on this machine; nothing is downloaded"):
        load_trusted("speechbrain/spkrec-ecapa-voxceleb", card)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {"a": "b"}}',
        '{"files": {"hyperparams.yaml": "a", "../b": "c"}}',
    ],
)
def test_what_is_no_card_is_refused(folder, card, text):
    card.write_text(text)
    with pytest.raises(ModelCardError, match="is no card|must list"):
        load_trusted(folder, card)
