"""Models of the hub in a local cache, laid out as huggingface_hub lays it out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nip_audio.errors import MissingDependencyError, ModelCardError
from nip_audio.models.sources.base import read_plain
from nip_audio.models.sources.hub import hub_directory, split_hub_id

hub = pytest.importorskip("huggingface_hub", reason="the extra hub reads models of the hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

COMMIT = "837717ddb9ff5507820346191109dc79c958d614"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache without network; only to be filled by ``put``."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache: Path, hub_id: str, files: dict[str, bytes], revision: str = "main") -> Path:
    """Write a model as a download leaves it: blobs, links to them, and a reference."""
    root = cache / f"models--{hub_id.replace('/', '--')}"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    for i, (name, data) in enumerate(files.items()):
        (root / "blobs" / f"blob{i}").write_bytes(data)
        (root / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/blob{i}")
    return root


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_finds_a_model_in_the_cache(revision, cache):
    root = put(cache, "some/model", {"config.yaml": b"a: 1"})
    found = hub_directory("some/model", revision)
    assert found.commit == COMMIT
    assert found.root.resolve() == root.resolve()
    assert read_plain(found.directory, "config.yaml", root=found.root) == b"a: 1"


def test_a_link_out_of_the_cache_is_refused(cache, tmp_path):
    root = put(cache, "some/model", {"config.yaml": b"a: 1"})
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (root / "snapshots" / COMMIT / "weights.bin").symlink_to(secret)
    found = hub_directory("some/model")
    with pytest.raises(ModelCardError, match="link"):
        read_plain(found.directory, "weights.bin", root=found.root)


@pytest.mark.usefixtures("cache")
def test_a_model_that_is_not_in_the_cache_has_a_remedy():
    with pytest.raises(ModelCardError, match="not in the local cache and the hub cannot be"):
        hub_directory("some/other")


def test_an_unknown_revision_has_a_remedy(cache):
    put(cache, "some/model", {"config.yaml": b"a: 1"})
    with pytest.raises(ModelCardError, match=r"some/model@v2 .* pass a directory"):
        hub_directory("some/model", "v2")


@pytest.mark.parametrize("name", ["GatedRepoError", "RepositoryNotFoundError", "HfHubHTTPError"])
def test_answers_of_the_hub_have_remedies(name, monkeypatch):
    error = getattr(errors, name)

    def fail(*_: object, **__: object) -> str:
        raise error.__new__(error, "no")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    remedy = "try again" if name == "HfHubHTTPError" else "log in"
    with pytest.raises(ModelCardError, match=remedy):
        hub_directory("some/model")


def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"\[hub\]"):
        hub_directory("some/model")


def test_splits_an_id():
    assert split_hub_id("pyannote/embedding") == ("pyannote/embedding", None)
    assert split_hub_id("a/b@v1.0") == ("a/b", "v1.0")


@pytest.mark.parametrize("text", ["model", "a/b/c", "../a", "a/b@", "a/b@../c", "a/..b", "/a", ""])
def test_refuses_what_is_no_id(text):
    with pytest.raises(ModelCardError, match="no id of the hub"):
        split_hub_id(text)
