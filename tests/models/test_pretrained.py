from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load, save
from speechbrain.lobes.models.ECAPA_TDNN import Classifier

from nip_audio.core.adapter import Batch
from nip_audio.errors import HashMismatchError, ModelCardError, UnsafeYamlError
from nip_audio.models import safe_yaml
from nip_audio.models.cards import list_pretrained
from nip_audio.models.pretrained import load_pretrained
from nip_audio.models.xvector import Xvector

YAML = """
n_mels: 40
embedding_dim: 4
compute_features: !new:nip_audio.audio.features.LogMel
    n_mels: !ref <n_mels>
    low_db: -60.0
embedding_model: !new:nip_audio.models.xvector.Xvector
    n_mels: !ref <n_mels>
    channels: [4, 4, 4, 4, 6]
    embedding_dim: !ref <embedding_dim>
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: !ref <embedding_dim>
    out_neurons: 3
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    network = Xvector(channels=[4, 4, 4, 4, 6], embedding_dim=4)
    classifier = Classifier(input_size=4, out_neurons=3)
    return {
        "embedding_model.safetensors": save(network.state_dict()),
        "classifier.safetensors": save(classifier.state_dict()),
    }


@pytest.fixture
def make_folder(tmp_path: Path, weights: dict[str, bytes]) -> Callable[..., Path]:
    """Write a model directory whose hashes are right, whatever else is not."""

    def make(
        name: str = "tiny",
        /,
        *,
        text: str | bytes = YAML,
        contents: Mapping[str, bytes] | None = None,
        **card: Any,
    ) -> Path:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        contents = dict(weights if contents is None else contents)
        contents["hyperparams.yaml"] = text.encode() if isinstance(text, str) else text
        for file, data in contents.items():
            (folder / file).write_bytes(data)
        data = {
            "format_version": 1,
            "name": name,
            "sample_rate_hz": 16000,
            "output_kind": "cosine",
            "scale": 30.0,
            "labels": ["ann", "bob", "cyd"],
            "default_taps": ["frames.4"],
            "files": {file: digest(data) for file, data in contents.items()},
            "calibration": None,
            "training": {},
            "metrics": {},
        } | card
        (folder / "model_card.json").write_text(json.dumps(data))
        return folder

    return make


@pytest.fixture
def no_yaml(monkeypatch):
    """Fail the test when any YAML is parsed."""

    def fail(*args, **options):
        pytest.fail("YAML was parsed")

    monkeypatch.setattr(safe_yaml, "load_hyperpyyaml", fail)
    monkeypatch.setattr(yaml, "compose", fail)
    monkeypatch.setattr(yaml, "load", fail)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_model_loads_with_its_weights_frozen_and_in_evaluation_mode(make_folder, weights):
    folder = make_folder()
    loaded = load_pretrained(folder)
    model = loaded.model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert (model.labels, model.scale, model.output_kind) == (("ann", "bob", "cyd"), 30.0, "cosine")
    assert (model.bounds.low, model.input_bounds.low) == (-1.0, 0.0)
    assert model.front_end.low_db == -60.0
    expected = load(weights["embedding_model.safetensors"])
    assert all(torch.equal(v, expected[k]) for k, v in model.network.state_dict().items())
    expected = load(weights["classifier.safetensors"])["weight"]
    assert torch.equal(model.head.references, expected)
    assert model.scores(Batch(torch.rand(2, 8000) - 0.5)).shape == (2, 3)
    assert load_pretrained(str(folder)).model_id == loaded.model_id


def test_card_properties(make_folder):
    card = load_pretrained(make_folder()).card
    assert (card.name, card.sample_rate_hz) == ("tiny", 16000)
    assert (card.labels, card.default_taps) == (("ann", "bob", "cyd"), ("frames.4",))
    assert card.calibration_path is None


def test_model_id_depends_on_the_files_alone(make_folder):
    one = load_pretrained(make_folder("one")).model_id
    assert load_pretrained(make_folder("two", metrics={"eer": 0.1})).model_id == one
    assert load_pretrained(make_folder("three", text=YAML + "extra: 1\n")).model_id != one


def test_model_without_classifier_is_a_bare_embedding_model(make_folder, weights):
    text = YAML[: YAML.index("classifier")]
    files = {"embedding_model.safetensors": weights["embedding_model.safetensors"]}
    model = load_pretrained(make_folder(text=text, contents=files, labels=[])).model
    assert model.head is None


DENSE = (
    YAML[: YAML.index("classifier")]
    + """
classifier: !new:torch.nn.Linear
    in_features: !ref <embedding_dim>
    out_features: 3
"""
)


def test_linear_classifier_is_the_head_itself(make_folder, weights):
    linear = torch.nn.Linear(4, 3)
    files = weights | {"classifier.safetensors": save(linear.state_dict())}
    options = {"text": DENSE, "contents": files, "output_kind": "logits", "scale": 1.0}
    model = load_pretrained(make_folder(**options)).model
    batch = Batch(torch.rand(2, 8000) - 0.5)
    assert (model.output_kind, model.labels) == ("logits", ("ann", "bob", "cyd"))
    expected = model.embed(batch) @ linear.weight.T + linear.bias
    torch.testing.assert_close(model.scores(batch), expected)


@pytest.mark.parametrize(
    ("name", "options", "bands"),
    [
        ("resnet34.ResNet34", "{width: 2}", 16),
        ("deep_speaker.DeepSpeaker", "{n_mels: 12, channels: [2, 3], embedding_dim: 5}", 12),
        ("audionet.AudioNet", "{}", 32),
        ("audionet.AudioNet", "{pooling: statistics}", 32),
        ("audionet.AudioNet", "{pooling: layers}", 32),
    ],
)
def test_every_architecture_loads(make_folder, name, options, bands):
    text = (
        f"compute_features: !new:nip_audio.audio.features.LogMel\n  n_mels: {bands}\n"
        f"embedding_model: !new:nip_audio.models.{name} {options}\n"
    )
    network = load_hyperpyyaml(text)["embedding_model"]
    files = {"embedding_model.safetensors": save(network.state_dict())}
    model = load_pretrained(make_folder(text=text, contents=files, labels=[])).model
    assert type(model.network) is type(network)
    assert model.embed(Batch(torch.rand(2, 8000) - 0.5)).isfinite().all()


# ---- hashes come first


@pytest.mark.parametrize("name", ["embedding_model.safetensors", "hyperparams.yaml"])
def test_flipped_byte_is_noticed_before_any_yaml_is_parsed(make_folder, no_yaml, name):
    folder = make_folder(text="a: !apply:os.system ['false']\n%: [")
    flip(folder / name)
    with pytest.raises(HashMismatchError, match=f"{name} has SHA-256 .*do not use it"):
        load_pretrained(folder)


def test_flipped_byte_in_the_calibration_is_noticed(make_folder, no_yaml):
    folder = make_folder(calibration={"file": "c.safetensors", "sha256": digest(b"fitted")})
    (folder / "c.safetensors").write_bytes(b"fitteD")
    with pytest.raises(HashMismatchError, match="c.safetensors has SHA-256"):
        load_pretrained(folder)


def test_calibration_has_a_path(make_folder):
    folder = make_folder(calibration={"file": "c.safetensors", "sha256": digest(b"fitted")})
    (folder / "c.safetensors").write_bytes(b"fitted")
    assert load_pretrained(folder).card.calibration_path == folder / "c.safetensors"


def test_missing_file_is_an_error(make_folder, no_yaml):
    folder = make_folder()
    (folder / "classifier.safetensors").unlink()
    with pytest.raises(ModelCardError, match="classifier.safetensors cannot be read .*restore"):
        load_pretrained(folder)


# ---- a YAML can only describe

COMMAND = "touch MARK"
ATTACKS = {
    "apply": f"a: !apply:os.system ['{COMMAND}']",
    "new": f"a: !new:subprocess.Popen ['{COMMAND}']",
    "new of a function": f"a: !new:os.system ['{COMMAND}']",
    "name": "a: !name:os.system",
    "module": "a: !module:os",
    "applyref": f"a: !applyref:os.system ['{COMMAND}']",
    "include": "a: !include:/etc/passwd",
    "copy": "b: 1\na: !copy <b>",
    "tuple": "a: !tuple (1, 2)",
    "placeholder": "a: !PLACEHOLDER",
    "python object": f"a: !!python/object/apply:os.system ['{COMMAND}']",
    "python name": "a: !!python/name:os.system ''",
    "python tuple": "a: !!python/tuple [1]",
    "verbatim tag": f"a: !<!apply:os.system> ['{COMMAND}']",
    "tag directive": f"%TAG !n! !apply:os.\n---\na: !n!system ['{COMMAND}']",
    "allowed class with a tail": "a: !new:nip_audio.models.xvector.Xvector.__class__ {}",
    "in a key": f"? !apply:os.system ['{COMMAND}']\n: 1",
    "deep inside": f"a: [{{b: [!apply:os.system ['{COMMAND}']]}}]",
    # HyperPyYAML parses "(…)" once more, with PyYAML's unsafe loader
    "tuple text": f'a: (!!python/object/apply:os.system ["{COMMAND}"])',
    "tuple text quoted": f"a: '(!!python/object/apply:os.system [\"{COMMAND}\"])'",
    "tuple text as key": f'(!!python/object/apply:os.system ["{COMMAND}"]): 1',
    "tuple text by reference": f"p: '(!!python/object/apply:os.system [{COMMAND}'\na: !ref <p>])",
    # never ends
    "power": "n: 99\na: !ref <n> ** <n> ** <n> ** <n>",
    "attribute": "a: !ref <compute_features.forward>",
    "brackets that take a parser hours": "a: " + "[" * 3000,
    "a long one": "a: " + "b" * 70_000,
    "anchor that holds itself": "a: &x [*x]",
    "mapping that holds itself": "a: &x {b: *x}",
    "a billion laughs": "a0: &a0 [x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
    "merge key": "b: &b {c: 1}\na:\n  <<: *b",
    "two files": f"a: 1\n--- \nb: !apply:os.system ['{COMMAND}']",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_unsafe_yaml_is_refused_though_its_hash_is_right(
    make_folder, tmp_path, monkeypatch, attack
):
    monkeypatch.chdir(tmp_path)
    directive, _, rest = attack.rpartition("---\n") if attack.startswith("%") else ("", "", attack)
    text = f"{directive}---{YAML}{rest}\n" if directive else f"{YAML}{rest}\n"
    with pytest.raises((UnsafeYamlError, ModelCardError)) as caught:
        load_pretrained(make_folder(text=text.replace("MARK", str(tmp_path / "MARK"))))
    assert not (tmp_path / "MARK").exists()
    # refused for what it asks, except where it is no single YAML document to begin with
    assert isinstance(caught.value, UnsafeYamlError) or attack is ATTACKS["two files"]
    assert "hyperparams.yaml" in str(caught.value)


@pytest.mark.parametrize("key", ["modules", "label_encoder", "pretrainer", "audio_normalizer"])
def test_what_is_for_speechbrain_is_never_built(make_folder, tmp_path, key):
    mark = tmp_path / "MARK"
    text = YAML + f"{key}:\n  a: !apply:os.system ['touch {mark}']\n  b: !ref <nowhere>\n"
    assert load_pretrained(make_folder(text=text)).model.labels == ("ann", "bob", "cyd")
    assert not mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        "modules2: !apply:os.system ['touch MARK']",
        "Modules: !apply:os.system ['touch MARK']",
        "!apply:os.system modules: ['touch MARK']",
        "[modules]: !apply:os.system ['touch MARK']",
        "a: {modules: !apply:os.system ['touch MARK']}",
        "a:\n- pretrainer: !apply:os.system ['touch MARK']",
        "modules: &x !apply:os.system ['touch MARK']\na: *x",
    ],
)
def test_only_the_keys_for_speechbrain_are_left_out(make_folder, tmp_path, attack):
    text = f"{YAML}{attack}\n".replace("MARK", str(tmp_path / "MARK"))
    with pytest.raises(UnsafeYamlError):
        load_pretrained(make_folder(text=text))
    assert not (tmp_path / "MARK").exists()


def test_refusal_names_what_is_allowed(make_folder):
    text = "a: !new:os.PathLike {}\n"
    with pytest.raises(
        UnsafeYamlError, match=r"uses '!new:os.PathLike'.*only use !ref and !new: of"
    ):
        load_pretrained(make_folder(text=text))


def test_loading_leaves_the_yaml_library_as_it_was(make_folder):
    before = dict(yaml.SafeLoader.yaml_multi_constructors)
    load_pretrained(make_folder())
    assert yaml.SafeLoader.yaml_multi_constructors == before


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is not a YAML mapping"),
        ("- 1\n", "is not a YAML mapping"),
        ("a: [1\n", "does not describe a model"),
        (b"a: \xff\xfe\n", "does not describe a model"),
        ("[" * 100, "does not describe a model"),
        ("a: 1\na: 2\n", "does not describe a model"),
        (YAML + "x: !ref <nowhere>\n", "does not describe a model"),
        (YAML + "x: !ref <x>\n", "does not describe a model"),
        (YAML + "modules: {a: 1}\nx: !ref <modules>\n", "does not describe a model"),
        (YAML.replace("low_db", "loud_db"), "unexpected keyword argument 'loud_db'"),
        (YAML.replace("low_db: -60.0", "low_db: 90.0"), "high_db is 40.0, expected a level"),
        (YAML.replace("compute_features", "features"), "lacks a module 'compute_features'"),
        (YAML.replace("embedding_model:", "net:"), "has no module 'embedding_model'"),
        (YAML.replace("[4, 4, 4, 4, 6]", "[4, 4, 4, 4, 8]"), "safetensors does not fit"),
        ("n: 1\n", "has no module"),
        ("classifier: 1\nembedding_model: 2\n", "has no module"),
    ],
)
def test_yaml_that_describes_no_model_is_an_error(make_folder, text, match):
    with pytest.raises(ModelCardError, match=match):
        load_pretrained(make_folder(text=text))


def test_classifier_must_be_one(make_folder, weights):
    network = weights["embedding_model.safetensors"]
    text = YAML[: YAML.index("classifier")] + YAML[YAML.index("embedding_model:") :].replace(
        "embedding_model:", "classifier:"
    )
    text = text[: text.rindex("classifier:")]
    files = {"embedding_model.safetensors": network, "classifier.safetensors": network}
    with pytest.raises(ModelCardError, match="do not fit .the classifier is a Xvector, expected"):
        load_pretrained(make_folder(text=text, contents=files))


def test_weights_that_are_no_safetensors_are_an_error(make_folder, weights):
    files = weights | {"classifier.safetensors": b"\x80\x04pickle"}
    with pytest.raises(ModelCardError, match="classifier.safetensors does not fit"):
        load_pretrained(make_folder(contents=files))


@pytest.mark.parametrize("name", ["embedding_model", "classifier"])
def test_module_without_weights_is_an_error_not_a_random_model(make_folder, weights, name):
    files = {k: v for k, v in weights.items() if not k.startswith(name)}
    with pytest.raises(ModelCardError, match=f"{name} has no weights; the card must list"):
        load_pretrained(make_folder(contents=files))


# ---- cards


def test_card_lacking_fields_is_an_error(make_folder):
    folder = make_folder()
    card = json.loads((folder / "model_card.json").read_text())
    del card["scale"], card["labels"]
    (folder / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(
        ModelCardError, match="model_card.json lacks scale, labels; restore the file"
    ):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "match"), [("{", "is not valid JSON"), ("[]", "lacks format_version"), ("1", "lacks")]
)
def test_card_that_is_no_card_is_an_error(make_folder, text, match):
    folder = make_folder()
    (folder / "model_card.json").write_text(text)
    with pytest.raises(ModelCardError, match=match):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("format_version", 2, "has format 2, expected 1; update nip-audio"),
        ("format_version", "1", "has format 1, expected 1|has wrong format_version"),
        ("name", 3, "has wrong name"),
        ("sample_rate_hz", "fast", "has wrong sample_rate_hz"),
        ("scale", None, "has wrong scale"),
        ("labels", "ann", "has wrong labels"),
        ("files", ["hyperparams.yaml"], "has wrong files"),
        ("calibration", "c.safetensors", "has wrong calibration"),
        ("calibration", {"file": "c.safetensors"}, "has wrong calibration"),
        ("calibration", {"file": 1, "sha256": "x"}, "has wrong calibration"),
        ("plda", "p.safetensors", "has wrong plda"),
        ("plda", {"file": "../p.safetensors", "sha256": "x"}, "plain file names"),
        ("output_kind", "probs", "output kind is 'probs' in the card, .* returns 'cosine'"),
        ("output_kind", "logits", "output kind is 'logits' in the card, .* returns 'cosine'"),
    ],
)
def test_wrong_value_in_the_card_is_an_error(make_folder, field, value, match):
    with pytest.raises(ModelCardError, match=match):
        load_pretrained(make_folder(**{field: value}))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "sub/file", "..", ".", ".hidden", "", "a\0b"]
)
@pytest.mark.parametrize("place", ["files", "calibration"])
def test_file_outside_the_directory_is_refused(make_folder, no_yaml, name, place):
    files = {"hyperparams.yaml": digest(YAML.encode())}
    calibration = None
    if place == "files":
        files = {name: digest(b"")} | files
    else:
        calibration = {"file": name, "sha256": digest(b"")}
    with pytest.raises(ModelCardError, match="and plain file names, got"):
        load_pretrained(make_folder(files=files, calibration=calibration))


def test_card_must_list_the_yaml_among_the_files(make_folder):
    calibration = {"file": "hyperparams.yaml", "sha256": digest(YAML.encode())}
    with pytest.raises(ModelCardError, match="must list hyperparams.yaml"):
        load_pretrained(make_folder(files={}, calibration=calibration))


# ---- names


@pytest.fixture
def known(make_folder, monkeypatch, tmp_path) -> None:
    make_folder("xvector-libri")
    make_folder("ecapa-vox")
    monkeypatch.setenv("NIP_AUDIO_PRETRAINED", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def test_model_is_found_by_name(known):
    assert load_pretrained("xvector-libri").card.name == "xvector-libri"
    names = [card.name for card in list_pretrained()]
    assert names == sorted(names)
    assert {"ecapa-vox", "xvector-libri"} <= set(names)


def test_unknown_name_lists_near_ones(known):
    with pytest.raises(
        ModelCardError, match="no model 'xvectr-libri'.*did you mean .*xvector-libri"
    ):
        load_pretrained("xvectr-libri")


def test_path_without_card_is_no_name(known, tmp_path):
    (tmp_path / "xvector-libri").mkdir()
    with pytest.raises(ModelCardError, match="neither a folder with a .* nor a known name"):
        load_pretrained(tmp_path / "xvector-libri")


def test_labels_must_be_as_many_as_classes(make_folder):
    with pytest.raises(ModelCardError, match="2 labels, the classifier 3 classes"):
        load_pretrained(make_folder(labels=["ann", "bob"]))


def test_broken_card_of_another_model_does_not_hide_what_is_known(known, tmp_path):
    broken = tmp_path / "models/broken"
    broken.mkdir()
    (broken / "model_card.json").write_text("{")
    with pytest.raises(ModelCardError, match="did you mean .*xvector-libri"):
        load_pretrained("xvector-libry")
