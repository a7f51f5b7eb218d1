"""Load SpeechBrain's own directories offline, if they match a card that the user trusts.

SpeechBrain's ``from_hparams`` builds and runs whatever a YAML names, unpickles weights and
downloads what it does not find. A card, kept outside the directory, therefore lists the hashes of
the files that somebody has reviewed. This toolkit's own directories do not need this, since
``load_pretrained`` and the guarded interfaces only build models.
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
    """Record the hashes of a directory's files, ``{"files": {…}}``, after you have reviewed them.

    Args:
        directory: Directory with SpeechBrain's ``hyperparams.yaml`` and weights.
        card: JSON file to write, outside the directory, so that whoever changes the directory
            cannot change the card as well.
        force: Whether to overwrite the card.

    Raises:
        InputError: If the card is in the directory, or the directory holds folders or links.
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
    """Load a SpeechBrain directory by ``from_hparams``, if it is exactly what the card lists.

    Files are copied before they are compared, and the copies are read, so that nobody can change
    them in between. Nothing is downloaded; a YAML that names files elsewhere fails.

    Args:
        directory: Directory on this machine.
        card: JSON file from ``write_card`` that you trust; its ``files`` maps names to SHA-256.
        interface: ``EncoderClassifier``, ``SpeakerRecognition`` or another SpeechBrain interface.
        run_opts: SpeechBrain's run options, e.g. ``{"device": "cuda"}``.

    Raises:
        InputError: If there is no such directory on this machine, or the card is in it.
        ModelCardError: If the card is malformed or lists other files than the directory has, or
            weights are missing.
        HashMismatchError: If a file differs from the card; nothing has been parsed then.
    """
    directory, card = Path(directory), Path(card)
    _require_outside(directory, card)
    files = _read_files(card)
    found = {path.name for path in _plain_files(directory)}
    if found != set(files):
        raise ModelCardError(
            f"{directory} holds {', '.join(sorted(found - set(files))) or 'nothing'} that {card} "
            f"does not list, and lacks {', '.join(sorted(set(files) - found)) or 'nothing'}; "
            "review the directory, and write the card again only if you trust it"
        )
    # removed only after SpeechBrain has read everything; the model does not need the files
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
    """Do what SpeechBrain's ``pretrained_from_hparams`` does, with files of this directory only."""
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
        # the YAML often names the repository on the hub that the directory came from
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
            "review it, and pass the folder"
        )
    if card.resolve().is_relative_to(directory.resolve()):
        raise InputError(
            f"{card} lies in the directory that it is to vouch for; keep it elsewhere, so that "
            "whoever changes the model cannot change the card with it"
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
