"""The tool starts at once: heavy libraries are imported when they are needed, and not before."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nip_audio
from nip_audio.attacks.registry import names_at
from nip_audio.cli import _commands, _options, _registered
from nip_audio.cli._commands import COMMANDS
from nip_audio.cli.fit_purifier import Method
from nip_audio.evaluation.robustness import DEFAULT_LAYERS, DEFAULT_NOISE
from nip_audio.purifiers.registry import PURIFIERS
from nip_audio.workflows.fit_settings import FIT_SETTINGS

PACKAGE = Path(nip_audio.__file__).parent
HEAVY = (
    *("torch", "torchaudio", "numpy", "scipy", "sklearn", "speechbrain", "librosa", "matplotlib"),
    *("PIL", "soundfile", "hyperpyyaml", "safetensors"),
)
LOADED = f"""
import sys
found = sorted(set({HEAVY!r}) & set(sys.modules))
assert not found, found
"""


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy():
    run_python("import nip_audio, nip_audio.errors\ndir(nip_audio)\n" + LOADED)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["models"], ["models", "--json"], ["screne"]],
    ids=" ".join,
)
def test_what_judges_nothing_loads_nothing_heavy(arguments):
    run_python(f"from nip_audio.cli import main\nassert main({arguments!r}) in (0, 64)\n" + LOADED)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(command):
    run_python(
        f"from nip_audio.cli import main\nassert main([{command!r}, '--help']) == 0" + LOADED
    )


def test_help_imports_no_command():
    names = [f"nip_audio.cli.{module_of(name)}" for name in COMMANDS]
    run_python(
        "import sys\nfrom nip_audio.cli import main\nassert main(['--help']) == 0\n"
        f"assert not set({names!r}) & set(sys.modules)"
    )


def test_judging_loads_neither_what_fits_nor_what_draws_nor_a_compiler():
    recording = PACKAGE.parent / "examples/enrolment/alba/alba-1.flac"
    unneeded = {"sklearn", "pandas", "matplotlib", "librosa", "ray", "torch._dynamo", "sympy"}
    run_python(
        "import sys\nfrom nip_audio.cli import main\n"
        f"assert main(['detect', {str(recording)!r}, '--json']) in (0, 3)\n"
        f"found = {unneeded!r} & set(sys.modules)\nassert not found, found"
    )


def module_of(command: str) -> str:
    return command.replace("-", "_")


def test_the_table_lists_each_command_module():
    modules = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    assert {module_of(name) for name in COMMANDS} == {m for m in modules if not m.startswith("_")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name):
    command = import_module(f"nip_audio.cli.{module_of(name)}").command
    assert inspect.getdoc(command).splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_at_most_ten_options_outside_of_panels(name):
    options = [
        one for one in _commands.load_command(name).params if one.param_type_name == "option"
    ]
    plain = [one for one in options if one.rich_help_panel is None]  # type: ignore[attr-defined]
    assert len(plain) + len(["--help"]) <= 10


def test_help_says_what_the_library_has():
    assert _registered.attack_names() == names_at("raw")
    assert _registered.purifier_names() == list(PURIFIERS)
    assert tuple(Method) == tuple(FIT_SETTINGS)
    assert DEFAULT_NOISE.scale == _options.NOISE_SCALE
    assert _options.LAYER_NAMES == DEFAULT_LAYERS
