from __future__ import annotations

import pytest
import torch

from nip_audio.core.fingerprint import weights_sha256
from nip_audio.errors import LayerNotFoundError
from nip_audio.models.sources.speechbrain_modules import instrument
from nip_audio.speechbrain.unpublished import unpublished


def test_a_model_gets_a_card_and_an_identity(tiny_model):
    taken = unpublished(tiny_model, name="tiny", default_taps=["frames.0", "embedding"])
    assert taken.model is tiny_model
    assert taken.card.name == "tiny"
    assert taken.card.labels == ("ann", "bob", "cyd")
    assert taken.card.default_taps == ("frames.0", "embedding")
    assert (taken.card.calibration_path, taken.card.purifier_path) == (None, None)
    same = unpublished(tiny_model, name="other", default_taps=["embedding"])
    assert same.model_id == taken.model_id
    with torch.no_grad():
        next(tiny_model.network.parameters()).add_(1e-3)
    changed = unpublished(tiny_model, name="tiny", default_taps=["embedding"])
    assert changed.model_id != taken.model_id


def test_identity_knows_structure_too():
    one, other = torch.nn.ReLU(), torch.nn.Tanh()
    assert weights_sha256(one) != weights_sha256(other)


def test_layers_are_those_of_speechbrains_network(make_speechbrain):
    model = instrument(make_speechbrain("ecapa"))
    assert unpublished(model, name="ecapa", default_taps=["fc"]).card.default_taps == ("fc",)
    with pytest.raises(LayerNotFoundError, match="nowhere"):
        unpublished(model, name="ecapa", default_taps=["nowhere"])
