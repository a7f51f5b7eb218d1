from __future__ import annotations

import json
import shutil

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from nip_audio import load_pretrained
from nip_audio.audio.io import ReadSettings, to_16_bits
from nip_audio.errors import InputError, StateError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.speechbrain.guided_purifier import GuidedPurifier
from nip_audio.speechbrain.waveforms import audio_of
from nip_audio.workflows.recordings import purify_audio


@pytest.fixture(scope="module")
def purifier(pretrained: PretrainedModel) -> GuidedPurifier:
    return GuidedPurifier(pretrained)


def test_a_recipe_can_name_it():
    purifier = load_hyperpyyaml(
        "p: !new:nip_audio.speechbrain.GuidedPurifier\n  model: xvector-libri251\n"
    )["p"]
    assert purifier.purifier.name.startswith("guided")


def test_it_does_what_purify_does(purifier, pretrained, voice):
    wav = torch.from_numpy(voice(1, 40))
    audio = audio_of(wav, ReadSettings(16000))
    expected = purify_audio(pretrained, purifier.purifier, audio, seed=0).samples
    got = purifier(wav)
    assert torch.equal(got, expected)
    assert torch.equal(got, to_16_bits(got))
    assert not torch.allclose(got, wav, atol=1e-3)


def test_batch_equals_its_items_and_padding_stays(purifier, voice):
    first, second = (torch.from_numpy(voice(s, 40, d)) for s, d in ((1, 1.0), (2, 0.5)))
    wavs = torch.zeros(2, 16000, dtype=torch.float64)
    wavs[0], wavs[1, :8000] = first, second
    before = wavs.clone()
    out = purifier(wavs, torch.tensor([1.0, 0.5]))
    assert torch.equal(wavs, before)
    assert out.shape == wavs.shape
    assert out.dtype == torch.float64
    assert torch.equal(out[0].float(), purifier(first))
    assert torch.equal(out[1, :8000].float(), purifier(second))
    assert not out[1, 8000:].any()


def test_silence_comes_back_as_it_is(purifier):
    silent = torch.zeros(2, 16000)
    assert torch.equal(purifier(silent), silent)


def test_bad_input_is_an_error(purifier):
    with pytest.raises(InputError, match="NaN"):
        purifier(torch.full((1, 16000), torch.nan))


def test_the_purifier_must_be_there_and_of_the_model(tmp_path):
    card = load_pretrained("xvector-libri251").card
    other = load_pretrained("resnet34-libri30").card
    with pytest.raises(StateError, match="model"):
        GuidedPurifier("xvector-libri251", other.purifier_path)
    folder = shutil.copytree(card.directory, tmp_path / "bare")
    data = json.loads((folder / "model_card.json").read_text())
    del data["purifier"]
    (folder / "model_card.json").write_text(json.dumps(data))
    with pytest.raises(StateError, match="comes without a purifier; fit one"):
        GuidedPurifier(folder)
