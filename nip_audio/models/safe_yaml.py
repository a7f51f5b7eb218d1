"""Build what a HyperPyYAML file describes, out of a short list of classes and nothing else.

HyperPyYAML runs what a file names. Here a file is read as plain YAML first, and every node must be
a plain value, a reference to another key, or an instance of a class on the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.error import YAMLError as RuamelYamlError
from torch.utils._python_dispatch import TorchDispatchMode

from nip_audio.errors import ModelCardError, UnsafeYamlError

__all__ = ["Vocabulary", "build", "checked_yaml", "measured_first"]

M = TypeVar("M")

_REFERENCES = ("!ref",)

_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")
)
# HyperPyYAML gives text a meaning of its own: "(…)" is parsed once more, by a loader that runs
# code, and a reference may compute. Names and numbers are all that a model description needs.
_PLAIN_TEXT = re.compile(r"[\w .+~-]*", re.ASCII)
_REFERENCE = re.compile(r"<\w+>", re.ASCII)
_MAX_BYTES, _MAX_BRACKETS = 1 << 16, 200
_MAX_NUMBER = 1e6  # no size, rate or number of speakers of a model is larger
_MAX_STEPS = 50_000  # of tensors, while modules are made; a ResNet of 34 layers takes 900


@dataclass(frozen=True)
class Vocabulary:
    """What a YAML file may use.

    Attributes:
        classes: Classes of which it may make instances, by ``!new:``.
        functions: Classes and functions that it may name, by ``!name:``.
        left_out: Top-level keys that are neither checked nor built.
        wanted: Top-level keys that are built, with all that they refer to; the others are left out.
            None builds all.
        most_values: Most values that the tensors of all steps of making the instances may have
            together; it is counted without allocating them. None does not count.
    """

    classes: frozenset[str]
    functions: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    wanted: frozenset[str] | None = None
    most_values: int | None = None

    @property
    def tags(self) -> frozenset[str]:
        """Tags other than YAML's own and references."""
        made = {f"!new:{name}" for name in self.classes}
        return frozenset(made | {f"!name:{name}" for name in self.functions})

    def words(self) -> str:
        """List what is allowed, for an error."""
        text = f"!ref and !new: of {', '.join(sorted(self.classes))}"
        return text + (f" and !name: of {', '.join(sorted(self.functions))}" * bool(self.functions))


class _Loader(yaml.SafeLoader):
    """Loader class on which HyperPyYAML registers its tags, to leave PyYAML's own unchanged."""


def build(data: bytes, path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Build what a YAML file describes, after checking it.

    Args:
        data: Content of the file.
        path: Path of the file, for errors.
        vocabulary: What the file may use.

    Returns:
        Values and instances by top-level key.

    Raises:
        ModelCardError: If it is no description of a model.
        UnsafeYamlError: If it uses anything else.
    """
    try:
        text = checked_yaml(data, path, vocabulary)
        if vocabulary.most_values is not None:
            with _Measured(path, vocabulary.most_values):
                load_hyperpyyaml(text, loader=_Loader)
        parts: dict[str, Any] = load_hyperpyyaml(text, loader=_Loader)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        RecursionError,
        RuamelYamlError,
        yaml.YAMLError,
    ) as err:
        reason = str(err) or type(err).__name__
        raise ModelCardError(
            f"{path} does not describe a model ({reason}); restore the file"
        ) from err
    return parts


def measured_first(make: Callable[[], M], path: Path, *, most_values: int) -> M:
    """Make a module, after making it without memory to count the values that it would need.

    Raises:
        ModelCardError: If they are more than any speaker model has.
    """
    with _Measured(path, most_values):
        make()
    return make()


class _Measured(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make tensors without their values while it is open, and count the values.

    Args:
        path: Path of the description, for errors.
        most_values: Most values of all steps together.
    """

    def __init__(self, path: Path, most_values: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.most_values = most_values
        self.values = 0
        self.steps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take one step on the device without memory."""
        placed = any(argument.name == "device" for argument in func._schema.arguments)
        kwargs = dict(kwargs or {}) | ({"device": torch.device("meta")} if placed else {})
        made = func(*args, **kwargs)
        self.steps += 1
        self.values += made.numel() if torch.is_tensor(made) else 0
        if self.values > self.most_values or self.steps > _MAX_STEPS:
            raise ModelCardError(
                f"{self.path} describes a network with more than "
                f"{min(self.values, self.most_values):.2g} values or {_MAX_STEPS} steps to make "
                "it, expected a speaker model; restore the file"
            )
        return made


def checked_yaml(data: bytes, path: Path, vocabulary: Vocabulary) -> str:
    """Check that a YAML file has only plain values, references and allowed classes.

    Args:
        data: Content of the file.
        path: Path of the file, for errors.
        vocabulary: What the file may use.

    Returns:
        The checked nodes written as new YAML, not the original text: HyperPyYAML uses another YAML
        parser, which may read the same text differently.

    Raises:
        ModelCardError: If it is no mapping.
        UnsafeYamlError: If it uses anything else, or is too large.
    """
    if len(data) > _MAX_BYTES or data.count(b"[") + data.count(b"{") > _MAX_BRACKETS:
        raise UnsafeYamlError(
            f"{path} has {len(data)} bytes, expected at most {_MAX_BYTES} with at most "
            f"{_MAX_BRACKETS} brackets: parsing more could take hours"
        )
    root = yaml.compose(data, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ModelCardError(f"{path} is not a YAML mapping; restore the file")
    root.value = [pair for pair in root.value if _key(pair[0]) not in vocabulary.left_out]
    if vocabulary.wanted is not None:
        _leave_out(root, vocabulary.wanted, path)
    tags = vocabulary.tags
    for node in _nodes(root, path):
        tag = node.tag
        if tag != "!ref" and tag not in _PLAIN_TAGS and tag not in tags:
            raise UnsafeYamlError(
                f"{path} uses {tag!r}; a model description may only use {vocabulary.words()}"
            )
        if isinstance(node, yaml.ScalarNode) and not _size(node.value) <= _MAX_NUMBER:  # or NaN
            raise UnsafeYamlError(
                f"{path} has the number {node.value[:40]}, expected at most {_MAX_NUMBER:g} in the "
                "description of a model; restore the file"
            )
        allowed = _REFERENCE if tag == "!ref" else _PLAIN_TEXT
        if isinstance(node, yaml.ScalarNode) and not allowed.fullmatch(node.value):
            raise UnsafeYamlError(
                f"{path} has the value {node.value!r}; a model description may only hold names, "
                "numbers and !ref <name>"
            )
    text: str = yaml.serialize(root, Dumper=yaml.SafeDumper)
    return text


def _size(text: str) -> float:
    """Return the size of the number that a text is to any reader of YAML; 0 for other text."""
    text = re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text, flags=re.IGNORECASE)  # as YAML has them
    for read in (float, lambda digits: float(int(digits, 0))):
        try:
            return abs(read(text))
        except OverflowError:
            return float("inf")
        except ValueError:
            continue
    return 0.0


def _key(node: yaml.Node) -> str | None:
    plain = isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS
    return str(node.value) if plain else None


def _leave_out(root: yaml.MappingNode, wanted: frozenset[str], path: Path) -> None:
    """Keep the wanted keys and, step by step, those that they refer to."""
    values = {_key(key): value for key, value in root.value}
    kept: set[str | None] = set()
    waiting = [name for name in wanted if name in values]
    while waiting:
        name = waiting.pop()
        kept.add(name)
        for node in _nodes(values[name], path):
            if node.tag in _REFERENCES and isinstance(node, yaml.ScalarNode):
                found = re.findall(r"<(\w+)>", node.value)
                waiting += [part for part in found if part in values and part not in kept]
    root.value = [pair for pair in root.value if _key(pair[0]) in kept]


def _nodes(root: yaml.Node, path: Path) -> list[yaml.Node]:
    found: list[yaml.Node] = []
    waiting: list[yaml.Node] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            # an anchor may hold itself, or a few lines may stand for billions of nodes
            raise UnsafeYamlError(f"{path} repeats a node by an anchor; use !ref")
        seen.add(id(node))
        found.append(node)
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return found
