from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nip_audio
from nip_audio import errors
from nip_audio.cli import main


@pytest.mark.parametrize(
    "name", [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
)
def test_every_error_is_one_of_ours(name):
    kind = getattr(errors, name)
    assert issubclass(kind, UserWarning if name.endswith("Warning") else errors.NipAudioError)


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (errors.InputError, ValueError),
        (errors.LayerNotFoundError, KeyError),
        (errors.MissingDependencyError, ImportError),
        (errors.HashMismatchError, errors.StateError),
        (errors.UnsafeYamlError, errors.StateError),
    ],
)
def test_errors_can_be_caught_as_what_they_are(error, standard):
    assert issubclass(error, standard)


def test_layer_error_shows_plain_text():
    assert str(errors.LayerNotFoundError("no layer 'x'")) == "no layer 'x'"


def test_audio_error_keeps_its_parts():
    error = errors.AudioError("a.wav", code="empty", found="it has 0 bytes", remedy="record again")
    assert str(error) == "a.wav: it has 0 bytes; record again"
    assert (error.code, error.found, error.remedy) == ("empty", "it has 0 bytes", "record again")


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts of a module other than docstrings, with ``…`` for values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in parts | docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                getattr(part, "value", "…") if isinstance(part, ast.Constant) else "…"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_library_names_arguments_and_not_options():
    """The command line translates `argument` into --option; a whole command may be quoted."""
    root = Path(nip_audio.__file__).parent
    said = [
        (path.relative_to(root).as_posix(), text)
        for path in sorted(root.rglob("*.py"))
        # recipes have options of their own, and image/modality.py lists options
        if path.relative_to(root).parts[0] not in ("cli", "training")
        and path.relative_to(root).as_posix() not in ("image/modality.py", "installation.py")
        for text in texts_of(path)
        if re.search(r"(?<![\w-])--[a-z]", text)
        and not re.search("nip-audio |pip install |[(]--", text)
    ]
    assert said == []  # a remedy in a record may name both: (--option, or argument)


def test_the_command_line_names_options(capsys, tmp_path):
    (tmp_path / "a.yaml").touch()
    assert main(["evaluate", str(tmp_path / "a.yaml"), "--init"]) == 65
    err = capsys.readouterr().err
    assert "pass --force to overwrite it" in err
    assert "`" not in err
