"""The public names are those in public_names.txt, and each is there when it is used.

A change of the list is a change of what users rely on: write it into the file, and CHANGELOG.md.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import nip_audio

ROOT = Path(__file__).parents[1]
LISTED = Path(__file__).with_name("public_names.txt").read_text(encoding="utf-8").splitlines()
PACKAGES = [
    ".".join(stub.parent.relative_to(ROOT).parts)
    for stub in sorted((ROOT / "nip_audio").rglob("__init__.pyi"))
]


def public_names() -> list[str]:
    return [f"{name}.{one}" for name in PACKAGES for one in sorted(import_module(name).__all__)]


def test_public_names_are_the_listed_ones():
    assert public_names() == LISTED


@pytest.mark.parametrize("name", PACKAGES)
def test_package_says_what_it_is(name):
    package = import_module(name)
    assert package.__doc__
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_editors_and_python_see_the_same_names(name):
    stub = Path(import_module(name).__file__).with_suffix(".pyi")
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    names = [a for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert all(alias.asname == alias.name for alias in names), "import x as x: exported"
    assert sorted(alias.name for alias in names) == sorted(import_module(name).__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_is_a_module_too(name):
    """Importing such a module would put it in the place of the name."""
    modules = {module.name for module in pkgutil.iter_modules(import_module(name).__path__)}
    assert not modules & set(import_module(name).__all__)


@pytest.mark.parametrize("name", LISTED)
def test_name_is_there_when_it_is_used(name):
    package, _, own = name.rpartition(".")
    value = getattr(import_module(package), own)
    assert value is getattr(import_module(package), own)
    assert getattr(value, "__name__", own) == own


def test_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'read_audoi'"):
        nip_audio.read_audoi  # noqa: B018
