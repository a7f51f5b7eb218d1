from __future__ import annotations

import builtins
import sys
from pathlib import Path

import fsspec
import pytest

from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.audio.manifest import Recording, read_recordings
from nip_audio.audio.remote import fetched, is_url, remote_stamp
from nip_audio.errors import AudioError, InputError, MissingDependencyError
from nip_audio.screening.stamps import stamp_of


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def remote(memory, write_sound) -> str:
    memory.pipe("/voices/ann/a.wav", write_sound().read_bytes())
    return "memory://voices/ann/a.wav"


def test_reads_a_url_as_the_file_it_names(remote, tmp_path):
    here, there = read_audio(tmp_path / "a.wav"), read_audio(remote)
    assert there.sha256 == here.sha256
    assert there.content_sha256 == here.content_sha256
    assert Recording("a", remote, span=(0, 12000)).read().duration_s == 0.75


def test_nothing_is_left_behind(remote):
    with fetched(remote, max_bytes=1 << 20) as path:
        assert path.exists()
    assert not path.exists()
    with pytest.raises(AudioError), fetched("memory://none", max_bytes=9) as path:
        pytest.fail("it does not exist")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("memory://voices/none.wav", "missing"),
        ("nosuch://a.wav", "unreadable"),
    ],
)
def test_what_cannot_be_fetched_is_an_error_of_that_file(remote, url, code):
    with pytest.raises(AudioError, match=r"; check the URL") as err:
        read_audio(url)
    assert err.value.code == code
    assert str(err.value).startswith(url)


def test_errors_name_the_url(memory):
    memory.pipe("/text.wav", b"no audio" * 100)
    with pytest.raises(AudioError, match=r"^memory://text.wav: its content is not audio"):
        read_audio("memory://text.wav")


def test_what_is_too_large_is_given_up(remote):
    with pytest.raises(AudioError, match="has more than the 32043 bytes allowed") as err:
        read_audio(remote, ReadSettings(max_bytes=32043))
    assert err.value.code == "too_large"
    assert read_audio(remote, ReadSettings(max_bytes=32044)).duration_s == 1.0


def test_the_stamp_changes_with_the_file(remote, memory):
    before = stamp_of(Recording("a", remote))
    assert (
        before == stamp_of(Recording("a", remote)) != stamp_of(Recording("a", remote, span=(0, 9)))
    )
    memory.rm("/voices/ann/a.wav")
    assert stamp_of(Recording("a", remote)) == "none:FileNotFoundError"
    memory.pipe("/voices/ann/a.wav", b"other")
    assert stamp_of(Recording("a", remote)) != before
    assert remote_stamp("nosuch://a.wav").startswith("none:")


@pytest.mark.parametrize("wanted", ["fsspec", "s3fs"])
def test_what_fetches_it_may_be_missing(monkeypatch, wanted):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == wanted:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(MissingDependencyError, match=r"s3://b/a.wav"):
        read_audio("s3://b/a.wav")


def test_tells_urls_from_paths():
    assert is_url("https://example.org/a.wav")
    assert not any(map(is_url, ("a.wav", "/a.wav", "c:/a.wav", "a://b"[1:], Path("s3://b/a"))))


def test_a_manifest_names_urls_below_the_data_root_only(tmp_path, remote):
    path = tmp_path / "m.csv"

    def read(place: str, root: str | None) -> list[Recording]:
        path.write_text(f"path\n{place}\n")
        return read_recordings(path, data_root=root)

    for place in (remote, "$data_root/ann/a.wav"):
        (recording,) = read(place, "memory://voices/")
        assert recording.read().duration_s == 1.0
    for root in (None, str(tmp_path), "memory://voic", "http://voices"):
        with pytest.raises(
            InputError, match="line 2: .*is a URL outside `data_root`; .*`data_root`"
        ):
            read(remote, root)
    for place in ("$data_root/../x.wav", "$data_root/%2e%2E/x.wav", "$data_root::file:///etc/x"):
        with pytest.raises(InputError, match=r"contains '::' or '\.\.'"):
            read(place, "memory://voices")
