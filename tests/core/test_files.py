"""What never ends or never answers is not opened, wherever a file of a stranger is read."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nip_audio.core import files
from nip_audio.core.files import check_regular, open_regular, read_regular
from nip_audio.errors import ImageError, NipAudioError
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.cards import read_card
from nip_audio.models.enrolment import Enrolment
from nip_audio.models.plda import Plda
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.reporting.run import ScreenedRun
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.engines.crumb import CRUMB_NAME, Crumb
from nip_audio.screening.journal import Journal, locked
from nip_audio.screening.pipeline import choose_seed
from nip_audio.screening.results import RESULTS_NAME, Results
from nip_audio.screening.review import read_accepted, read_known


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)  # whole paths may be too long


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "device": device,
    "folder": folder,
    "socket": listening,
}


@pytest.fixture(params=sorted(KINDS))
def put(request) -> Callable[[Path], None]:
    """Put something that is no file at a path; opening any would hang or never end."""

    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        KINDS[request.param](path)

    return put


def test_only_regular_files_are_opened(tmp_path, put):
    put(tmp_path / "x")
    for read in (check_regular, open_regular, lambda path: read_regular(path, most=10)):
        with pytest.raises(OSError, match="expected a file") as caught:
            read(tmp_path / "x")
        assert caught.value.strerror == str(caught.value)


def test_a_missing_file_is_missing_and_a_link_to_a_file_is_one(tmp_path):
    check_regular(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"abc")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    assert read_regular(tmp_path / "x", most=3) == b"abc"


def test_size_is_looked_at_before_reading(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(OSError, match="it has 1099511627776 bytes, at most 9 are read"):
        read_regular(tmp_path / "x", most=9)


def test_what_takes_a_files_place_after_the_look_is_not_waited_for(tmp_path, monkeypatch):
    pipe(tmp_path / "x")
    monkeypatch.setattr(files, "check_regular", lambda path: None)
    with pytest.raises(OSError, match="expected a file"):
        open_regular(tmp_path / "x")


def test_what_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"abcd")
    monkeypatch.setattr(files, "open_regular", lambda path, most: path.open("rb"))
    with pytest.raises(OSError, match="it has 4 bytes, at most 3 are read"):
        read_regular(tmp_path / "x", most=3)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: Calibration.load(path, model_id="m"),
        lambda path: Enrolment.load(path, model_id="m"),
        lambda path: Plda.load(path, model_id="m"),
        lambda path: GuidedNip.load(path, model_id="m"),
        Journal,
        lambda path: ImageAdapter().load(path),
    ],
    ids=["calibration", "enrolment", "plda", "purifier", "journal", "image"],
)
def test_whatever_reads_a_file_of_a_stranger_looks_first(tmp_path, put, read):
    put(tmp_path / "x")
    with pytest.raises(NipAudioError, match="expected a file"):
        read(tmp_path / "x")


def test_a_lock_is_a_file(tmp_path, put):
    put(tmp_path / "run.lock")
    with (
        pytest.raises(NipAudioError, match="cannot be written .*expected a file"),
        locked(tmp_path),
    ):
        pytest.fail("locked")


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_a_folder_of_results_may_hold_anything(tmp_path, put, name):
    for other in ("run.json", "summary.json"):
        (tmp_path / other).write_text("{}")
    put(tmp_path / name)
    with pytest.raises(NipAudioError, match=f"{name} cannot be read .*expected a file"):
        ScreenedRun.open(tmp_path)


def test_what_a_run_remembers_is_a_file(tmp_path, put, monkeypatch):
    monkeypatch.setattr("nip_audio.screening.pipeline.secret_seed", lambda: 7)
    put(tmp_path / "run.json")
    assert choose_seed(None, tmp_path) == 7  # as without a run
    put(tmp_path / "known.json")
    with pytest.raises(NipAudioError, match="known.json is damaged .*expected a file"):
        read_known(tmp_path / "known.json")
    put(tmp_path / CRUMB_NAME)
    with pytest.raises(NipAudioError, match="expected a file"):
        Crumb(tmp_path / CRUMB_NAME).left()
    put(tmp_path / "accepted.toml")
    with pytest.raises(NipAudioError, match="is no file of at most"):
        read_accepted(tmp_path / "accepted.toml")


def test_results_that_are_no_file_are_an_error(tmp_path, put):
    put(tmp_path / RESULTS_NAME)
    with pytest.raises(NipAudioError, match=f"{RESULTS_NAME} cannot be read .*expected a file"):
        list(Results(tmp_path, {}).files())


@pytest.fixture(params=["model_card.json", "hyperparams.yaml", "calibration"])
def part_of_a_model(request, pretrained, tmp_path) -> tuple[Path, Callable[[Path], object]]:
    """A file of a copied directory of a model, and what reads it."""
    name = request.param
    shutil.copytree(pretrained.card.directory, tmp_path / "model")
    if name == "calibration":
        name = pretrained.card.data["calibration"]["file"]
    return tmp_path / "model" / name, read_card if name == "model_card.json" else load_pretrained


def test_a_directory_of_a_model_may_hold_anything(part_of_a_model, put):
    path, read = part_of_a_model
    put(path)
    with pytest.raises(NipAudioError, match="cannot be read .*expected a file"):
        read(path.parent)


def test_a_directory_of_a_model_may_hold_gigabytes(part_of_a_model):
    path, read = part_of_a_model
    with path.open("r+b") as file:
        file.truncate(6 << 30)  # sparse
    with pytest.raises(NipAudioError, match="cannot be read .*at most"):
        read(path.parent)


def test_a_huge_image_is_not_read(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(ImageError, match="at most 268435456 are read; convert it") as caught:
        ImageAdapter().load(tmp_path / "x.png")
    assert caught.value.code == "too_large"


def test_a_pipe_named_like_an_image_does_not_block(tmp_path, put):
    put(tmp_path / "x.png")
    with pytest.raises(ImageError, match="expected a file; pass a file") as caught:
        ImageAdapter().load(tmp_path / "x.png")
    assert caught.value.code == "not_a_file"
