from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError, StateError
from nip_audio.purifiers.patch_dictionary import PatchDictionary
from nip_audio.purifiers.registry import PURIFIERS, make_purifier, purifier_entry


class FrontEnd(nn.Module):
    sample_rate_hz = 8000


@pytest.fixture
def telephone_model() -> InstrumentedModel:
    return InstrumentedModel(
        nn.Identity(),
        front_end=FrontEnd(),
        bounds=Bounds(-1.0, 1.0),
        input_bounds=Bounds(0.0, 2.0),
    )


def test_bounds_and_rate_are_the_models(telephone_model):
    down = make_purifier("down-sampling", model=telephone_model, settings={"rate_hz": 4000})
    assert (down.bounds, down.sample_rate_hz) == (telephone_model.bounds, 8000)
    jpeg = make_purifier("jpeg", model=telephone_model, settings={"quality": None})
    assert (jpeg.bounds, jpeg.quality) == (telephone_model.input_bounds, 50)


def test_a_rate_is_not_contradicted(telephone_model):
    with pytest.raises(InputError, match="sample rate is 16000 Hz, this model expects 8000 Hz"):
        make_purifier("mp3", model=telephone_model, settings={"sample_rate_hz": 16000})


def test_an_unknown_name_is_an_error_with_near_ones(telephone_model):
    with pytest.raises(InputError, match=r"no purifier 'quantisation'; did you mean quantization"):
        make_purifier("quantisation", model=telephone_model)
    with pytest.raises(InputError, match="known: guided, pool, noise"):
        purifier_entry("zzz")


def test_an_unknown_setting_is_an_error_with_the_known_ones(telephone_model):
    with pytest.raises(InputError, match="mp3 has no setting bitrate, expected only compression_"):
        make_purifier("mp3", model=telephone_model, settings={"bitrate": 64})
    # what the entry or the model says is no setting
    for name, key in (("mp3", "codec"), ("mp3", "bounds"), ("anti-adversary", "model")):
        with pytest.raises(InputError, match=f"no setting {key}"):
            make_purifier(name, model=telephone_model, settings={key: "opus"})


def test_a_missing_setting_is_an_error(telephone_model):
    with pytest.raises(InputError, match="patch-dictionary needs path; pass it"):
        make_purifier("patch-dictionary", model=telephone_model)


def test_what_was_fitted_is_read_from_its_file(rows_model, patches, tmp_path):
    path = tmp_path / "patches.safetensors"
    patches.save(path, model_id="m1")
    read = make_purifier(
        "patch-dictionary", model=rows_model, model_id="m1", settings={"path": str(path)}
    )
    assert isinstance(read, PatchDictionary)
    assert read.settings() == patches.settings()
    assert read.seen == {"a", "b"}
    assert torch.equal(read.dictionary, patches.dictionary)


@pytest.mark.parametrize("name", ["patch-dictionary", "guided"])
def test_what_was_fitted_to_another_model_is_refused(rows_model, patches, guided, tmp_path, name):
    path = tmp_path / "purifier"
    {"patch-dictionary": patches, "guided": guided}[name].save(path, model_id="m1")
    with pytest.raises(StateError, match="was made for model m1"):
        make_purifier(name, model=rows_model, model_id="m2", settings={"path": path})


def test_what_was_fitted_on_another_range_is_refused(telephone_model, patches, tmp_path):
    patches.save(tmp_path / "patches.safetensors", model_id="m1")
    with pytest.raises(StateError, match=r"fitted on input in \[0.0, 1.0\]"):
        PatchDictionary.load(tmp_path / "patches.safetensors", bounds=telephone_model.input_bounds)


def test_entries_name_their_settings():
    assert PURIFIERS["mp3"].settings == ("compression_level", "sample_rate_hz")
    assert PURIFIERS["patch-dictionary"].settings == ("path",)
    assert PURIFIERS["patch-dictionary"].required == ("path",)
    assert PURIFIERS["anti-adversary"].settings == ("steps", "step")
