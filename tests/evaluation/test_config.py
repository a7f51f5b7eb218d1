from __future__ import annotations

import pytest

from nip_audio.errors import AttackError, InputError
from nip_audio.evaluation.config import GatePlan, read_config
from nip_audio.evaluation.defences import make_defences
from nip_audio.purifiers.gated import GatedPurifier
from nip_audio.screening.calibration import Calibration


def test_reads_what_it_says(write_config, corpus):
    attacks = [
        {"attack": "pgd", "level": "input", "eps": ["4/255", 0.03], "settings": {"steps": 3}},
        {"attack": "fgsm", "eps": [0.01], "protocol": "transfer", "source": "x", "systems": ["x"]},
    ]
    config = read_config(write_config(attacks=attacks, defences=["noise"], seed=7))
    assert config.data_root == corpus
    assert config.attacks[0].eps == (pytest.approx(4 / 255), 0.03)
    assert config.attacks[0].settings == {"steps": 3}
    assert config.attacks[1].source == "x"
    assert config.systems[0].enrol
    assert config.defences == ({"name": "noise"},)
    assert config.seed == 7


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"title_": "x"}, "key 'title_' is unknown; did you mean title"),
        ({"systems": {}}, "no systems or no attacks"),
        ({"systems": {"x": {"subset": "voices"}}}, "systems.x lacks model"),
        ({"systems": {"x": {"model": "m", "subset": "v", "crop": 3}}}, "did you mean crop_s"),
        ({"attacks": {"attack": "pgd"}}, "attacks is .*, expected a list"),
        ({"attacks": [{"attack": "fgsm", "eps": ["a"]}]}, "expected e.g. 0.002 or 4/255"),
        ({"attacks": [{"attack": "fgsm", "eps": [0.1], "items": 0}]}, "whole number of at least 1"),
        ({"attacks": [{"attack": "fgsm", "eps": [0.1], "systems": ["y"]}]}, "system 'y' is unk"),
        (
            {"attacks": [{"attack": "fgsm", "eps": [0.1], "protocol": "oracle"}]},
            "protocol 'oracle' is unknown; known: unaware",
        ),
        (
            {"attacks": [{"attack": "fgsm", "eps": [0.1], "protocol": "transfer"}]},
            "name a system as source",
        ),
        (
            {"attacks": [{"attack": "fgsm", "eps": [0.1], "source": "x"}]},
            "goes with protocol transfer",
        ),
        (
            {"attacks": [{"attack": "fgsm", "eps": [0.1], "behind": ["noise 20 dB"]}]},
            "behind is for protocol adaptive",
        ),
        ({"defences": ["nois"]}, "defence 'nois' is unknown; did you mean noise"),
        ({"defences": [{"snr_db": 3}]}, "defence '' is unknown; known: guided"),
        ({"defences": [{"name": "noise", "snr": 3}]}, "key 'snr' is unknown; did you mean snr_db"),
        ({"defences": [{"name": "jpeg", "systems": ["y"]}]}, "system 'y' is unknown; known: x"),
        (
            {"defences": ["pool"]},
            r"defences\[0\]: pool lacks path, .* write {name: pool, path: FILE}",
        ),
        ({"defences": [{"name": "median", "gate": 1}]}, "gate of median is 1, expected keys"),
        ({"defences": [{"name": "median", "gate": {"rate": 1}}]}, "gate of median"),
        (
            {"defences": [{"name": "median", "gate": {"calibration": "x", "fpr": "low"}}]},
            "fpr is 'low', expected a share",
        ),
        ({"seed": "x"}, "seed is 'x', expected a whole number"),
        ({"sound": -1}, "sound is -1"),
        (
            {"systems": {"x": {"model": "m", "enrol": True, "back_end": "lda"}}},
            "back_end is 'lda', expected cosine or plda",
        ),
        (
            {"systems": {"x": {"model": "m", "back_end": "plda"}}},
            "back_end is plda, expected enrol: true beside it",
        ),
        ({"data": {"root": "/nowhere", "split": "/nowhere"}}, "/nowhere does not exist"),
        ({"data": {}}, "no data.root; add it, or pass `data_root`"),
    ],
)
def test_wrong_place_is_named(write_config, changes, match):
    with pytest.raises(InputError, match=match):
        read_config(write_config(**changes))


def test_what_was_fitted_lies_beside_the_configuration(write_config, tmp_path):
    config = read_config(write_config(defences=[{"name": "pool", "path": "{system}.pool"}]))
    assert config.defences == ({"name": "pool", "path": tmp_path / "{system}.pool"},)


def test_a_defence_may_stand_before_some_systems_alone(write_config, system):
    plans = [{"name": "median", "systems": ["x"]}, {"name": "jpeg", "systems": []}]
    config = read_config(write_config(defences=plans))
    for name, expected in (("x", ["median 3", "JPEG 50"]), ("y", ["JPEG 50"])):
        found = make_defences(config.defences, system.pretrained, system.model, (), system=name)
        assert [d for d in found if d.startswith(("median", "JPEG"))] == expected


def test_so_are_the_gates_of_purifiers(write_config, tmp_path):
    gate = {"calibration": "{system}.calibration", "fpr": 0.05}
    config = read_config(write_config(defences=[{"name": "median", "gate": gate}]))
    expected = GatePlan(tmp_path / "{system}.calibration", 0.05)
    assert config.defences == ({"name": "median", "gate": expected},)
    config = read_config(write_config(defences=[{"name": "median", "gate": {}}]))
    assert config.defences == ({"name": "median", "gate": GatePlan(None, 0.01)},)


def test_a_gate_without_a_file_is_the_detector_of_the_model(write_config, system):
    plans = read_config(write_config(defences=[{"name": "median", "gate": {}}])).defences
    found = make_defences(plans, system.pretrained, system.model, (), system="x")
    (gated,) = [d for d in found.values() if isinstance(d, GatedPurifier)][:1]
    own = Calibration.of(system.pretrained)
    assert gated.gate.calibration.fingerprint == own.fingerprint


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        ({"attack": "pdg", "eps": [0.002]}, "no attack 'pdg'; did you mean pgd"),
        ({"attack": "pgd", "eps": [8]}, "8/255 is 0.0314"),
        ({"attack": "pgd"}, "pgd needs eps"),
        ({"attack": "pgd", "eps": [0.1], "settings": {"step": 3}}, "pgd has no setting step"),
        ({"attack": "pgd", "eps": [0.1], "level": "image"}, "cannot work at level 'image'"),
        ({"attack": "spatial", "level": "input"}, "spatial is for images only"),
        ({"attack": "spatial"}, "spatial is for images only"),
    ],
)
def test_senseless_attack_is_found_before_anything_is_computed(write_config, attack, match):
    with pytest.raises(AttackError, match=match):
        read_config(write_config(attacks=[attack]))


@pytest.mark.parametrize("text", ["a: [", "- 1", "\xff"])
def test_what_is_no_configuration_is_an_error(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as YAML|expected keys and values"):
        read_config(path)


def test_places_can_be_given_beside_it(write_config, corpus):
    path = write_config(data={})
    config = read_config(path, data_root=corpus, split=corpus / "split.csv")
    assert config.split == corpus / "split.csv"
