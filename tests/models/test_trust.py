"""Models that can run code run it only for the account that trusts them, and unchanged."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nip_audio import load_pretrained
from nip_audio.errors import HashMismatchError, ModelCardError, OutputError
from nip_audio.models.trust import is_trusted, remember_trust, trust_file
from nip_audio.workflows.adopt import adopt_model

CODE = """
from pathlib import Path

import torch
from torch import nn

with Path({trace!r}).open("a") as trace:
    trace.write("imported\\n")


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 9, 32, stride=8)

    def forward(self, x):
        return self.conv(x[:, None]).tanh().mean(2)


def embedder():
    return Embedder()
"""


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account that trusts nothing yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "account"))
    return tmp_path / "account"


class Factory:
    """A module of the user's with a function that returns a model."""

    source = "python:trusted_speaker_package.models:embedder"

    def __init__(self, folder: Path) -> None:
        self.trace = folder / "trace"
        self.path = folder / "trusted_speaker_package" / "models.py"
        self.path.parent.mkdir()
        (self.path.parent / "__init__.py").write_text("")
        self.path.write_text(CODE.format(trace=str(self.trace)))

    def forget(self) -> None:
        """As in a new process."""
        for name in [name for name in sys.modules if name.startswith("trusted_speaker_package")]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def runs(self) -> int:
        return len(self.trace.read_text().splitlines()) if self.trace.exists() else 0


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    made = Factory(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    made.forget()
    yield made
    made.forget()


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 9, 32, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, None]).tanh().mean(2)


@pytest.fixture(params=["torchscript", "export"])
def file_source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A file that can run code, and its source."""
    net = Embedder().eval()
    if request.param == "torchscript":
        path = tmp_path / "model.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(net, torch.rand(2, 8000)), path)
    else:
        path = tmp_path / "model.pt2"
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        program = torch.export.export(net, (torch.rand(2, 8000),), dynamic_shapes=(free,))
        torch.export.save(program, path)
    return f"{request.param}:{path}", path


def forbid_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*args: object, **kwargs: object) -> None:
        pytest.fail("a file that is not trusted was parsed")

    monkeypatch.setattr(torch.jit, "load", parsed)
    monkeypatch.setattr(torch.export, "load", parsed)


# --- the store ---


def test_remembers_source_and_files_together(account):
    assert not is_trusted("python:a:b", "1")
    path = remember_trust("python:a:b", "1")
    assert path == trust_file() == account / "nip-audio" / "trusted-models.txt"
    assert is_trusted("python:a:b", "1")
    assert not is_trusted("python:a:b", "2")
    assert not is_trusted("python:a:c", "1")
    assert not is_trusted("python:a:b1", "")
    before = path.read_text()
    remember_trust("python:a:b", "1")
    assert path.read_text() == before


def test_trust_is_withdrawn_by_removing_the_line():
    path = remember_trust("python:a:b", "1")
    remember_trust("python:a:c", "1")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "a:c" in line))
    assert not is_trusted("python:a:b", "1")
    assert is_trusted("python:a:c", "1")


def test_a_source_of_several_lines_trusts_nothing_else():
    other = remember_trust("python:x:y", "9")
    (line,) = other.read_text().splitlines()
    other.unlink()
    remember_trust(f"python:a:b\n{line}", "1")
    assert not is_trusted("python:x:y", "9")


def test_damage_and_other_bytes_trust_nothing():
    path = remember_trust("python:a:b", "1")
    path.write_bytes(b"\xff\xfe\n\n " + path.read_bytes()[:40])
    assert not is_trusted("python:a:b", "1")


def test_a_store_that_cannot_be_written_has_a_remedy(account):
    account.write_text("no folder")
    with pytest.raises(OutputError, match="set XDG_CONFIG_HOME"):
        remember_trust("python:a:b", "1")


# --- functions of the user's ---


def test_a_function_is_loaded_from_its_card(factory, tmp_path):
    made = adopt_model(factory.source, tmp_path / "card")
    assert made.trusted_in == trust_file()
    factory.forget()
    assert load_pretrained(tmp_path / "card").model_id == made.card.model_id
    assert factory.runs() == 2


def test_a_changed_module_is_not_imported(factory, tmp_path):
    adopt_model(factory.source, tmp_path / "card")
    factory.forget()
    factory.path.write_text(factory.path.read_text() + "\n")
    with pytest.raises(HashMismatchError, match=r"models\.py"):
        load_pretrained(tmp_path / "card")
    assert factory.runs() == 1


def test_changed_weights_of_a_function_are_seen(factory, tmp_path, monkeypatch):
    adopt_model(factory.source, tmp_path / "card")
    module = sys.modules["trusted_speaker_package.models"]
    monkeypatch.setattr(module, "embedder", lambda: torch.nn.Sequential(module.Embedder().double()))
    with pytest.raises((HashMismatchError, ModelCardError)):
        load_pretrained(tmp_path / "card")


def test_another_account_is_asked_again(factory, tmp_path, monkeypatch):
    adopt_model(factory.source, tmp_path / "card")
    factory.forget()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    with pytest.raises(ModelCardError, match="this account has not said that it trusts") as caught:
        load_pretrained(tmp_path / "card")
    assert f"adopt --trust-model '{factory.source}'" in str(caught.value)
    assert factory.runs() == 1


@pytest.mark.parametrize("files", [{}, {"models.py": "0" * 64}, None])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_card_of_a_stranger_runs_nothing(files, trusted, factory, tmp_path):
    adopt_model(factory.source, tmp_path / "own")
    factory.forget()
    card = json.loads((tmp_path / "own" / "model_card.json").read_text())
    card["source"] = card["source"].replace("models:embedder", "models:Embedder")
    card |= {"trusted": trusted, "files": card["files"] if files is None else files}
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(ModelCardError, match="has not said that it trusts"):
        load_pretrained(tmp_path / "card")
    assert factory.runs() == 1


def test_a_card_without_hashes_runs_nothing_even_if_it_was_trusted(factory, tmp_path):
    made = adopt_model(factory.source, tmp_path / "card")
    factory.forget()
    path = tmp_path / "card" / "model_card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    assert made.trusted_in is not None
    with pytest.raises(ModelCardError, match="has not said that it trusts"):
        load_pretrained(tmp_path / "card")
    assert factory.runs() == 1


# --- files that can run code ---


def test_a_file_is_trusted_once(file_source, tmp_path):
    source, _ = file_source
    with pytest.raises(ModelCardError, match="--trust-model"):
        adopt_model(source, tmp_path / "card")
    assert not (tmp_path / "card").exists()
    made = adopt_model(source, tmp_path / "card", trust=True)
    assert made.trusted_in == trust_file()
    assert load_pretrained(tmp_path / "card").model_id == made.card.model_id


def test_a_changed_file_is_not_parsed(file_source, tmp_path, monkeypatch):
    source, path = file_source
    adopt_model(source, tmp_path / "card", trust=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    forbid_parsing(monkeypatch)
    with pytest.raises(HashMismatchError, match=path.name):
        load_pretrained(tmp_path / "card")


def test_a_file_of_a_stranger_is_not_parsed(file_source, tmp_path, monkeypatch):
    source, path = file_source
    adopt_model(source, tmp_path / "card", trust=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    forbid_parsing(monkeypatch)
    with pytest.raises(ModelCardError, match="has not said that it trusts"):
        load_pretrained(tmp_path / "card")
    with pytest.raises(ModelCardError, match="can run any code when it is read"):
        load_pretrained(f"{source.partition(':')[0]}:{path}")
