"""Nothing that is read can run anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from nip_audio.errors import NipAudioError, StateError
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.plda import Plda
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibration import Calibration

PACKAGE = Path(__file__).parents[1] / "nip_audio"
READERS = {
    "calibration": lambda path: Calibration.load(path, model_id="m"),
    "enrolment": lambda path: Enrolment.load(path, model_id="m"),
    "plda": lambda path: Plda.load(path, model_id="m"),
    "purifier": lambda path: GuidedNip.load(path, model_id="m"),
}


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_unopened(tmp_path, kind, zipped):
    path = tmp_path / "file"
    torch.save(
        {"embeddings": Trap(tmp_path / "trace")}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(StateError, match="is not a nip-audio"):
        READERS[kind](path)
    assert not (tmp_path / "trace").exists()
    torch.load(path, weights_only=False)  # noqa: TID251 - the trap does work
    assert (tmp_path / "trace").exists()


def test_a_pickle_as_weights_is_refused_unopened(tmp_path, pretrained):
    import hashlib
    import json

    from nip_audio import load_pretrained

    card = dict(pretrained.card.data)
    torch.save(Trap(tmp_path / "trace"), tmp_path / "classifier.safetensors")
    for name in set(card["files"]) - {"classifier.safetensors"}:
        (tmp_path / name).write_bytes((pretrained.card.directory / name).read_bytes())
    data = (tmp_path / "classifier.safetensors").read_bytes()
    card["files"] = {**card["files"], "classifier.safetensors": hashlib.sha256(data).hexdigest()}
    for companion in ("calibration", "plda", "purifier"):
        card[companion] = None
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(NipAudioError, match="classifier.safetensors does not fit"):
        load_pretrained(tmp_path)
    assert not (tmp_path / "trace").exists()


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {("torch", "load"), ("torch", "jit"), ("yaml", "unsafe_load"),
         ("subprocess", "run"), ("os", "system")}  # fmt: skip
ALLOWED = {
    # imports packages in another Python, by programs that are literals of the module
    ("installation.py", "subprocess", "run"),
    # of tensors and plain values only: see test_checkpoints_are_read_as_plain_values
    ("plain_weights.py", "torch", "load"),
    # only where the user says that the file is trusted
    ("torch_file.py", "torch", "jit"),
}


def test_checkpoints_are_read_as_plain_values():
    calls = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    for call in calls:
        (value,) = [k.value for k in call.keywords if k.arg == "weights_only"]
        assert isinstance(value, ast.Constant)
        assert value.value is True


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_no_module_unpickles_or_evaluates_text(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            names.add((getattr(node, "module", "") or "").split(".")[0])
            assert not names & FORBIDDEN
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            call = (node.value.id, node.attr)
            assert call not in CALLS or (path.name, *call) in ALLOWED
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile"}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load":
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            assert all(
                isinstance(value, ast.Constant) and value.value is False for value in allowed
            )
