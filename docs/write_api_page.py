"""Write docs/reference/api/index.md from the public names: python docs/write_api_page.py.

The sources are parsed, not imported.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "api" / "index.md"
NAMES = ROOT / "tests" / "public_names.txt"
OPENING = """# Python

Every public name with the first line of its documentation; `make pages` writes this page.
`help(nip_audio.screen)` prints the arguments, the result and the errors of one. What is not listed
here may change without notice.
"""
DETAILS = """
## Details

The built site (`make docs`) shows the full documentation of `nip_audio`, and of the modules that
the concept pages refer to.

::: nip_audio
    options:
      show_root_heading: false
      show_submodules: false
"""
MODULES = {
    "Influence of neurons": "nip_audio.core.influence",
    "Change rates": "nip_audio.core.nccr",
    "The published NIP": "nip_audio.purifiers.nip_pool",
    "Guided NIP": "nip_audio.purifiers.nip_guided",
    "The clean-only detector": "nip_audio.detectors.clean",
    "Thresholds and p-values": "nip_audio.detectors.conformal",
}


def page() -> str:
    """Return the page."""
    packages: dict[str, list[str]] = defaultdict(list)
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        package, _, name = line.rpartition(".")
        packages[package].append(name)
    tables = "".join(table(package, names) for package, names in packages.items())
    modules = "".join(f"\n## {title}\n\n::: {module}\n" for title, module in MODULES.items())
    return OPENING + tables + DETAILS + modules


def table(package: str, names: list[str]) -> str:
    """Return the section of one package."""
    stub = _parsed(_folder(package) / "__init__.pyi")
    homes = {
        alias.name: f"{package}.{node.module}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    rows = "".join(f"| `{name}` | {first_line(homes[name], name)} |\n" for name in names)
    about = _plain(ast.get_docstring(_parsed(_folder(package) / "__init__.py")) or "")
    return f"\n## {package}\n\n{about}\n\n| name | is |\n|---|---|\n{rows}"


def first_line(module: str, name: str) -> str:
    """Return the first paragraph of the documentation of a name, where it is defined.

    Raises:
        ValueError: If it has none.
    """
    body = _parsed(_file(module)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        found = None
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            found = ast.get_docstring(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node):
            text = after.value if isinstance(after, ast.Expr) else None
            found = text.value if isinstance(text, ast.Constant) else None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return first_line(str(node.module), alias.name)
        if isinstance(found, str):
            return _plain(found)
    raise ValueError(f"{module}.{name} has no docstring: write one")


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _plain(docstring: str) -> str:
    paragraph = " ".join(docstring.strip().partition("\n\n")[0].split())
    return paragraph.replace("``", "`").replace("|", "\\|")


def _folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))


def _file(module: str) -> Path:
    folder = _folder(module)
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
