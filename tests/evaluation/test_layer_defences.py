"""Defences inside the network, by name in a configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nip_audio.errors import InputError, LayerNotFoundError
from nip_audio.evaluation.config import read_config
from nip_audio.evaluation.defences import NO_DEFENCE, applies, ask, make_defences
from nip_audio.evaluation.runner import Runner
from nip_audio.evaluation.systems import batch_of
from nip_audio.purifiers.class_neurons import ClassNeurons

ATTACKS = [
    {"attack": "fgsm", "eps": [0.02], "items": 4, "batch": 4},
    {"attack": "fgsm", "level": "input", "eps": ["8/255"], "items": 4, "batch": 4},
    {
        "attack": "pgd-e2e",
        "eps": [0.02],
        "items": 2,
        "settings": {"steps": 2, "restarts": 1, "draws": 2},
        "protocol": "adaptive",
    },
]
SAP = "SAP 100% 5 layers"


def defences_of(system, *plans):
    return make_defences(plans, system.pretrained, system.model, ())


def test_the_matrix_has_them_at_both_levels_and_under_adaptive_attack(write_config, tmp_path):
    config = read_config(write_config(attacks=ATTACKS, defences=["sap"]))
    results = Runner(config, tmp_path / "out").run()
    expected = [NO_DEFENCE, "noise 20 dB", SAP]
    assert list(results["systems"]["x"]["accuracy"]) == expected
    behind = [[d["defence"] for d in c["defences"]] for c in results["cells"][:2]]
    assert behind == [["noise 20 dB", SAP], [SAP]]  # noise is before the front end
    adaptive = [c["attacked_defence"] for c in results["cells"] if c["protocol"] == "adaptive"]
    assert adaptive == ["noise 20 dB", SAP]


def test_layers_are_the_cards_unless_named(system):
    defences = defences_of(system, {"name": "sap"}, {"name": "sap", "layers": ["pool_norm"]})
    layers = [defences[name].layers for name in (SAP, "SAP 100% pool_norm")]
    assert layers == [system.pretrained.card.default_taps, ("pool_norm",)]


def test_what_does_not_fit_is_found_before_anything_is_computed(system, tmp_path):
    with pytest.raises(LayerNotFoundError, match="did you mean frames"):
        defences_of(system, {"name": "sap", "layers": ["frame.0"]})
    path = tmp_path / "x.neurons"
    ClassNeurons({"embedding": torch.ones(2, 6)}, labels=("a", "b"), share=0.5).save(
        path, model_id=system.pretrained.model_id
    )
    with pytest.raises(InputError, match="the neurons were selected for 2, a, b"):
        defences_of(system, {"name": "class-neurons", "path": path})


def test_what_was_fitted_on_a_test_item_is_refused(system, tmp_path):
    width = system.model.network.get_submodule("embedding").out_features
    ns = ClassNeurons(
        {"embedding": torch.ones(len(system.model.labels), width, dtype=torch.bool)},
        labels=system.model.labels,
        share=1.0,
        seen=["tested"],
    )
    ns.save(tmp_path / "x.neurons", model_id=system.pretrained.model_id)
    plan = {"name": "class-neurons", "path": f"{tmp_path}/{{system}}.neurons"}
    make_defences([plan], system.pretrained, system.model, ["other"], system="x")
    with pytest.raises(InputError, match="class neurons 100% embedding"):
        make_defences([plan], system.pretrained, system.model, ["tested"], system="x")


@pytest.mark.parametrize("level", ["raw", "input"])
def test_answers_are_the_same_again(system, level):
    (sap,) = (d for d in defences_of(system, {"name": "sap"}).values() if d and d.name == SAP)
    assert applies(sap, level)
    batch = batch_of(system.items[:3])
    if level == "input":
        batch = system.model.to_input(batch)
    first, again, other = (
        ask(system.model, sap, [batch], level=level, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.embeddings, again.embeddings)
    assert not np.array_equal(first.embeddings, other.embeddings)
