"""Imports go one way. What may import what is written here, and nowhere else enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nip_audio"
FILES = sorted(ROOT.rglob("*.py"))

# the order of the packages: each may import those above it, and itself
_AUDIO = {"errors", "core", "audio"}
_DEFENCES = {"errors", "core", "detectors", "attacks", "purifiers"}
_MIDDLE = _AUDIO | _DEFENCES | {"image", "models"}
_STAGES = _MIDDLE | {"screening", "workflows", "reporting"}
ALLOWED = {
    "errors": set(),
    "core": {"errors", "core"},
    "audio": _AUDIO,
    "image": {"errors", "core", "image"},
    "models": _AUDIO | {"image", "models"},
    "detectors": {"errors", "core", "detectors"},
    "attacks": {"errors", "core", "attacks"},
    "purifiers": _DEFENCES,
    "screening": _MIDDLE | {"screening", ""},
    "workflows": _MIDDLE | {"screening", "workflows"},
    "reporting": _STAGES | {""},
    "evaluation": _STAGES | {"evaluation", ""},
    "speechbrain": _STAGES | {"evaluation", "speechbrain", ""},
    "training": _STAGES | {"evaluation", "speechbrain", "training", ""},
    "service": _STAGES | {"service", ""},
    "integrations": {"speechbrain"},  # old names of its modules, which shipped models' YAMLs have
    "_lazy": set(),
    "_safe_path": set(),
    "installation": {"errors", "models"},
    "api": _STAGES,
    "cli": _STAGES
    | {"evaluation", "speechbrain", "training", "service", "api", "installation"}
    | {"cli", ""},
    "__main__": {"cli"},
    "": _STAGES | {"api"},  # the package itself
}
CLIENTS = sorted(
    path for folder in ("studies", "recipes") for path in (ROOT.parent / folder).rglob("*.py")
)
"""Beside the package; nobody in it may import them, and they may import what is public."""
PRIVATE_ALLOWED = {
    # ART imported, wrapped and seeded as the attacks do it
    "studies/backdoors/baselines.py": {"nip_audio.attacks._art"},
}
SOUND_LIBRARIES = {"librosa", "soundfile", "soxr", "speechbrain", "torchaudio"}


def part_of(name: str) -> str:
    """nip_audio.core.taps → core."""
    return (name.split(".") + [""])[1]


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file, relative ones made absolute."""
    package = ["nip_audio", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from nip_audio import cli" names a module as much as "import nip_audio.cli" does
            whole = module.count(".") == 0 and module == "nip_audio"
            named = {f"{module}.{a.name}" for a in node.names if a.name != "__version__"}
            found |= named if whole else {module}
    return found


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def own_part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0].removesuffix("__init__")


def test_the_reader_of_imports_sees_every_form(monkeypatch, tmp_path):
    path = tmp_path / "core" / "x.py"
    path.parent.mkdir()
    path.write_text(
        "import nip_audio.cli\nfrom nip_audio import audio\nfrom . import taps\n"
        "from ..models.xvector import Xvector\n\ndef f():\n    import foolbox.attacks as fa\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert imports(path) == {
        "nip_audio.cli",
        "nip_audio.audio",
        "nip_audio.core",
        "nip_audio.models.xvector",
        "foolbox.attacks",
    }


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way(path):
    assert own_part(path) in ALLOWED, f"{own_part(path)}: say in ALLOWED what it may import"
    own = {name for name in imports(path) if name.split(".")[0] == "nip_audio"}
    # by which every package loads its names, and which comes before any other import
    own -= {"nip_audio._lazy", "nip_audio._safe_path"}
    wrong = {n for n in own if part_of(n) not in ALLOWED[own_part(path)]}
    assert not wrong, f"{path.name} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_library_knows_no_study_and_no_recipe(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"studies", "recipes"}


def client_of(path: Path) -> str:
    return path.relative_to(ROOT.parent).as_posix()


@pytest.mark.parametrize("path", CLIENTS, ids=client_of)
def test_clients_import_what_is_public(path):
    wrong = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "import by the full name"
            named = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        else:
            continue
        assert "recipes" not in {name.split(".")[0] for name in named}
        wrong |= {
            name
            for name in named
            if name.startswith("nip_audio.")
            and any(part.startswith("_") and part != "__version__" for part in name.split("."))
        }
    allowed = PRIVATE_ALLOWED.get(client_of(path), set())
    assert not {name for name in wrong if not name.startswith(tuple(allowed or {"-"}))}


@pytest.mark.parametrize("path", sorted((ROOT / "core").glob("*.py")), ids=module_of)
def test_core_needs_torch_numpy_safetensors_and_metrics_only(path):
    others = {
        name
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"nip_audio"}
    }
    allowed = {"torch", "numpy", "safetensors"}
    wrong = {n for n in others if n.split(".")[0] not in allowed}
    assert wrong <= ({"sklearn.metrics"} if path.name == "metrics.py" else set())


@pytest.mark.parametrize("path", sorted((ROOT / "detectors").rglob("*.py")), ids=module_of)
def test_detectors_know_no_audio(path):
    assert not {name.split(".")[0] for name in imports(path)} & SOUND_LIBRARIES


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_public_modules_say_what_is_public(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name.startswith("_") and len(tree.body) <= 1:
        return  # an empty package, with or without its docstring
    names = [
        [element.value for element in node.value.elts]
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    if path.name.startswith("_") and path.name != "__init__.py":
        assert not names, "a private module has nothing public"
        return
    if path.with_suffix(".pyi").exists():
        return  # tests/test_public_names.py
    assert len(names) == 1, "define __all__"
    bound = {name for node in tree.body for name in bound_names(node)}
    assert set(names[0]) <= bound
    assert len(set(names[0])) == len(names[0])


def bound_names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        # of names that are loaded when they are used: tests/test_startup.py uses each
        return {name for inner in node.body for name in bound_names(inner)}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {t.id for t in targets if isinstance(t, ast.Name)}
    return set()


BLOCK = """
import importlib, sys
sys.modules["foolbox"] = sys.modules["eagerpy"] = None
for name in {modules!r}:
    importlib.import_module(name)
"""


def test_everything_imports_without_the_optional_attack_library():
    modules = [
        "nip_audio." + module_of(path).replace("/", ".").removesuffix(".__init__")
        for path in FILES
        if own_part(path) in {"core", "audio", "image", "models", "detectors", "attacks"}
    ]
    code = BLOCK.format(modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
