"""SpeechBrain's own directories, offline, and only once they match a card that the user trusts.

This toolkit's directories need none of this: ``load_pretrained`` and the guarded interfaces build
nothing that their YAML does not need. SpeechBrain's ``from_hparams`` builds and runs whatever a
YAML names, unpickles weights and downloads what it does not find. So here a card is asked for, kept
elsewhere than the directory, that says which bytes were looked at and found good.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchConfig, FetchFrom, FetchSource, LocalStrategy

from nip_audio.core.state import file_sha256, write_atomic
from nip_audio.errors import HashMismatchError, InputError, ModelCardError

__all__ = ["load_trusted", "write_card"]

Interface = TypeVar("Interface")

_HYPERPARAMS = "hyperparams.yaml"


def write_card(directory: str | Path, card: str | Path, *, force: bool = False) -> None:
    """Write down what a directory holds now, after you have looked at it: ``{"files": {…}}``.

    Args:
        directory: With SpeechBrain's ``hyperparams.yaml`` and weights.
        card: JSON to write, outside the directory: whoever changes the one must not change the
            other.
        force: Overwrite.

    Raises:
        InputError: If the card lies in the directory, or that holds folders or links.
        OutputError: If the card exists.
    """
    directory, card = Path(directory), Path(card)
    _require_outside(directory, card)
    files = {path.name: file_sha256(path) for path in _plain_files(directory)}
    write_atomic(card, (json.dumps({"files": files}, indent=1) + "\n").encode(), force=force)


def load_trusted(
    directory: str | Path,
    card: str | Path,
    *,
    interface: type[Interface] = EncoderClassifier,
    run_opts: dict[str, Any] | None = None,
) -> Interface:
    """Load a directory of SpeechBrain's by ``from_hparams``, if it is just what the card lists.

    The bytes that were compared are what is read: they are copied first, so that nobody can change
    them in between. Nothing is downloaded; a YAML that names files elsewhere finds no network.

    Args:
        directory: On this machine.
        card: JSON with ``files``, name to SHA-256, that you trust, from ``write_card``.
        interface: ``EncoderClassifier``, ``SpeakerRecognition`` or another of SpeechBrain's.
        run_opts: As of SpeechBrain, e.g. ``{"device": "cuda"}``.

    Raises:
        InputError: If the directory is none on this machine, or the card lies in it.
        ModelCardError: If the card is malformed or lists other files than there are, or weights are
            missing.
        HashMismatchError: If a file differs; nothing has been parsed then.
    """
    directory, card = Path(directory), Path(card)
    _require_outside(directory, card)
    files = _read_files(card)
    found = {path.name for path in _plain_files(directory)}
    if found != set(files):
        raise ModelCardError(
            f"{directory} holds {', '.join(sorted(found - set(files))) or 'nothing'} that {card} "
            f"does not list, and lacks {', '.join(sorted(set(files) - found)) or 'nothing'}; look "
            "at the directory, and write the card anew only if you trust it"
        )
    # not removed before SpeechBrain has read all; what it built has no need of the files
    with tempfile.TemporaryDirectory(prefix="nip-audio-") as name:
        copy = Path(name)
        for file, expected in files.items():
            shutil.copyfile(directory / file, copy / file)
            if (copied := file_sha256(copy / file)) != expected:
                raise HashMismatchError(
                    f"{directory / file} has SHA-256 {copied[:12]}…, {card} says {expected[:12]}…; "
                    "the file was changed or damaged: restore it, and do not use it"
                )
        return _build(copy, interface, run_opts)


def _build(directory: Path, interface: type[Interface], run_opts: Any) -> Interface:
    """Do what SpeechBrain's ``pretrained_from_hparams`` does, with files of the directory alone."""
    with (directory / _HYPERPARAMS).open(encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file)
    missing = [key for key in ("modules", "pretrainer") if key not in hparams]
    if missing:
        raise ModelCardError(
            f"{_HYPERPARAMS} lacks {' and '.join(missing)}; expected a directory that "
            "SpeechBrain's from_hparams loads"
        )
    pretrainer = hparams["pretrainer"]
    for name in pretrainer.loadables:
        # the YAML often says a repository of the hub, where the directory came from
        path = directory / Path(pretrainer.paths.get(name, f"{name}.ckpt")).name
        if not path.is_file():
            raise ModelCardError(
                f"{_HYPERPARAMS} loads {name} from {path.name}, which the directory lacks; fetch it"
            )
        pretrainer.paths[name] = str(path)
    pretrainer.set_collect_in(None)
    pretrainer.collect_files(
        default_source=FetchSource(FetchFrom.LOCAL, str(directory)),
        local_strategy=LocalStrategy.NO_LINK,
        fetch_config=FetchConfig(allow_network=False),
    )
    pretrainer.load_collected()
    built: Any = interface
    loaded: Interface = built(modules=hparams["modules"], hparams=hparams, run_opts=run_opts)
    return loaded


def _require_outside(directory: Path, card: Path) -> None:
    if not directory.is_dir():
        raise InputError(
            f"{directory} is no folder on this machine; nothing is downloaded: fetch it yourself, "
            "look at it, and give the folder"
        )
    if card.resolve().is_relative_to(directory.resolve()):
        raise InputError(
            f"{card} lies in the directory that it is to vouch for; keep it elsewhere, or whoever "
            "changes the model changes the card with it"
        )


def _plain_files(directory: Path) -> list[Path]:
    found = sorted(directory.iterdir())
    odd = [path.name for path in found if path.is_symlink() or not path.is_file()]
    if odd:
        raise InputError(f"{directory} holds {', '.join(odd)}, expected plain files only")
    return found


def _read_files(card: Path) -> dict[str, str]:
    try:
        files = json.loads(card.read_text(encoding="utf-8"))["files"]
        pairs = {str(name): str(sha256) for name, sha256 in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelCardError(
            f"{card} is no card ({err!r}), expected {{'files': {{name: SHA-256}}}}; write one with "
            "write_card"
        ) from err
    if _HYPERPARAMS not in pairs or any(Path(name).name != name for name in pairs):
        raise ModelCardError(f"{card} must list {_HYPERPARAMS} and plain file names only")
    return pairs
