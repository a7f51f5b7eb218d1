from __future__ import annotations

import inspect
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nip_audio.audio.io import AUDIO_SUFFIXES, read_audio
from nip_audio.audio.manifest import (
    PassedOver,
    Recording,
    find_in_folder,
    read_recordings,
    walk_audio,
    walk_folder,
)
from nip_audio.errors import AudioError, InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_walk_is_sorted_and_takes_the_speaker_from_the_first_level(tmp_path):
    touch(
        tmp_path,
        *("bob/2.wav", "bob/1.FLAC", "bob/deep/er/3.mp3", "ann/x.ogg"),
        *("loose.wav", "ann/notes.txt", ".hidden", "bob/wav"),
    )
    got = list(walk_audio(tmp_path))
    assert [(r.id, r.speaker) for r in got] == [
        ("ann/x.ogg", "ann"),
        ("bob/1.FLAC", "bob"),
        ("bob/2.wav", "bob"),
        ("bob/deep/er/3.mp3", "bob"),
        ("loose.wav", None),
    ]
    assert all(r.path == tmp_path / r.id and r.span is None for r in got)


def test_unreadable_folder_is_yielded_to_be_reported(tmp_path, monkeypatch):
    touch(tmp_path, "ann/a.wav", "shut/b.wav")
    scandir = os.scandir

    def shut(path):  # by hand, because root may read everything
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", shut)
    assert [(r.id, r.speaker) for r in walk_audio(tmp_path)] == [
        ("ann/a.wav", "ann"),
        ("shut", "shut"),
    ]
    with pytest.raises(InputError, match="shut cannot be read"):
        list(walk_audio(tmp_path / "shut"))


def test_link_loops_end_where_they_close(tmp_path):
    touch(tmp_path, "ann/a.wav")
    (tmp_path / "ann" / "up").symlink_to(tmp_path)
    (tmp_path / "ann" / "self").symlink_to(tmp_path / "ann" / "self")
    (tmp_path / "bob").symlink_to(tmp_path / "ann")
    assert [r.id for r in walk_audio(tmp_path)] == ["ann/a.wav", "bob/a.wav"]


def test_links_out_of_the_folder_are_reported_and_followed_only_if_asked(tmp_path, write_sound):
    inside, outside = write_sound("root/ann/a.wav"), write_sound("elsewhere/bob/b.wav")
    root = tmp_path / "root"
    (root / "bob").symlink_to(outside.parent)
    (root / "ann" / "b.wav").symlink_to(outside)
    (root / "ann" / "same.wav").symlink_to("a.wav")
    (root / "up").symlink_to(tmp_path)
    got = {r.id: r for r in walk_audio(root)}
    assert list(got) == ["ann/a.wav", "ann/b.wav", "ann/same.wav", "bob", "up"]
    assert got["ann/same.wav"].read().content_sha256 == read_audio(inside).content_sha256
    for name in ("ann/b.wav", "bob", "up"):
        with pytest.raises(
            AudioError, match=r"is a link to .*; replace the link by the file"
        ) as err:
            got[name].read()
        assert err.value.code == "outside"
    followed = {r.id: r for r in walk_audio(root, follow_links=True)}
    assert "up/elsewhere/bob/b.wav" in followed
    assert followed["bob/b.wav"].speaker == "bob"
    assert followed["ann/b.wav"].read().duration_s == 1.0


def test_a_folder_named_by_a_link_is_no_link_out_of_it(tmp_path, write_sound):
    write_sound("real/a.wav")
    (tmp_path / "link").symlink_to("real")
    (recording,) = walk_audio(tmp_path / "link")
    assert recording.read().duration_s == 1.0


@contextmanager
def room_for(more: int) -> Iterator[None]:
    """Let Python call so many functions more, and open so many files more."""
    calls, (soft, hard) = sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_NOFILE)
    sys.setrecursionlimit(len(inspect.stack(0)) + more)
    opened = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, opened + more), hard))
    try:
        yield
    finally:
        sys.setrecursionlimit(calls)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_folders_as_deep_as_a_system_allows(tmp_path, monkeypatch):
    """Deeper than functions may call each other, and than files may be open."""
    deep = 300
    monkeypatch.chdir(tmp_path)
    for _ in range(deep):
        os.mkdir("d")
        os.chdir("d")
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.wav")
    with room_for(deep - 50):
        assert [r.id for r in walk_audio(tmp_path)] == ["a.wav"]
    for _ in range(deep):
        os.chdir("d")
    for _ in range(deep):  # what cleans up after tests may not be able to
        os.chdir("..")
        os.rmdir("d")


def test_what_only_looks_like_audio_is_yielded_to_be_reported(tmp_path):
    touch(tmp_path, "ann/folder.wav/inner.wav")
    (tmp_path / "ann" / "broken.wav").symlink_to(tmp_path / "none")
    (tmp_path / "ann" / "loop.wav").symlink_to(tmp_path / "ann" / "loop.wav")
    got = [r.id for r in walk_audio(tmp_path)]
    assert got == ["ann/broken.wav", "ann/folder.wav", "ann/loop.wav"]


def test_odd_names(tmp_path):
    touch(tmp_path, "ünï/声\n.wav", "ünï/a b.wav")
    assert [(r.id, r.speaker) for r in walk_audio(tmp_path)] == [
        ("ünï/a b.wav", "ünï"),
        ("ünï/声\n.wav", "ünï"),
    ]


COMPOSED, TAKEN_APART = "Zo\u00eb", "Zoe\u0308"  # one name in two Unicode forms


def test_hidden_files_and_folders_of_the_system_are_passed_over(tmp_path):
    touch(
        tmp_path,
        *("ann/a.wav", "ann/._a.wav", "ann/.cache/b.wav", ".Trash-1000/c.wav", ".DS_Store"),
        *("__MACOSX/ann/a.wav", "$RECYCLE.BIN/d.wav", "ann/@eaDir/a.wav", "lost+found/e.wav"),
        *(".ipynb_checkpoints/f.wav", "ann/notes.txt"),
    )
    assert [r.id for r in walk_audio(tmp_path)] == ["ann/a.wav"]
    found = list(walk_folder(tmp_path, AUDIO_SUFFIXES))
    assert {one.id for one in found if isinstance(one, PassedOver) and one.hidden} == {
        *("ann/._a.wav", "ann/.cache/", ".Trash-1000/", "__MACOSX/", "$RECYCLE.BIN/"),
        *("ann/@eaDir/", "lost+found/", ".ipynb_checkpoints/"),
    }
    assert PassedOver("ann/notes.txt", hidden=False) in found


def test_a_hidden_folder_that_was_asked_for_is_walked(tmp_path):
    touch(tmp_path, ".data/ann/a.wav")
    assert [r.id for r in walk_audio(tmp_path / ".data")] == ["ann/a.wav"]


def test_two_unicode_forms_of_a_name_are_one_speaker(tmp_path):
    touch(tmp_path, f"{TAKEN_APART}/a.wav", "Zof/b.wav", f"{COMPOSED}/c.wav")
    assert [(r.id, r.speaker) for r in walk_audio(tmp_path)] == [
        ("Zof/b.wav", "Zof"),
        (f"{COMPOSED}/c.wav", COMPOSED),  # the files of one speaker follow each other
        (f"{COMPOSED}/a.wav", COMPOSED),
    ]
    for recording in walk_audio(tmp_path):
        assert recording.path.is_file()
        assert find_in_folder(tmp_path, recording.id) == recording.path


@pytest.mark.parametrize(
    "names",
    [
        (f"{COMPOSED}/a.wav", f"{TAKEN_APART}/a.wav"),
        ("ann/\u00e9.wav", "ann/e\u0301.wav"),
        ("\u00e9.wav", "e\u0301.wav"),
    ],
)
def test_of_two_files_of_one_name_the_second_is_an_error(tmp_path, names, write_sound):
    for name in names:
        write_sound(name)
    first, second = walk_audio(tmp_path)
    assert first.id == names[0]
    assert first.read().duration_s == 1.0
    assert second.id == names[1] != first.id
    assert second.speaker == first.speaker
    with pytest.raises(AudioError, match="another Unicode form.*; rename one of the two") as err:
        second.read()
    assert err.value.code == "same_name"


def test_outer_spaces_are_no_part_of_a_speaker(tmp_path):
    touch(tmp_path, "ann/a.wav", "ann!/b.wav", "ann /c.wav")
    assert [r.speaker for r in walk_audio(tmp_path)] == ["ann", "ann", "ann!"]


def test_empty_folder_yields_nothing_and_a_missing_one_is_an_error(tmp_path):
    assert list(walk_audio(tmp_path)) == []
    with pytest.raises(InputError, match="none is not a folder; pass the folder that holds"):
        list(walk_audio(tmp_path / "none"))


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    return tmp_path / "m.csv"


def test_manifest_is_read_in_its_own_order(tmp_path):
    path = write(
        tmp_path,
        "ID,duration,wav,start,stop,spk_id\n"
        "u2,1.0,$data_root/b.flac,16,32,ann\n"
        "u1,1.0,sub/../a.flac,,,\n",
    )
    assert read_recordings(path, data_root=tmp_path) == [
        Recording("u2", tmp_path / "b.flac", "ann", (16, 32)),
        Recording("u1", tmp_path / "a.flac", None, None),
    ]


def test_manifest_without_spans(tmp_path):
    path = write(tmp_path, "ID,wav,spk_id\nu,a.wav,ann\n")
    assert read_recordings(path) == [Recording("u", tmp_path / "a.wav", "ann")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ID,wav\nu,a.wav\n", "lacks column spk_id; expected SpeechBrain's columns"),
        ("x,y\n1,2\n", "lacks column ID, wav, spk_id"),
        ("", "has no rows"),
        ("ID,wav,spk_id\n", "has no rows"),
        ("ID,wav,spk_id\nu,$data_root/a.wav,ann\n", "pass `data_root`"),
        (
            "ID,wav,spk_id,start,stop\nu,a.wav,ann,0.5,1.5\n",
            "line 2: start and stop are '0.5' and '1.5', expected whole numbers",
        ),
        (
            "ID,wav,spk_id,start,stop\nu,a.wav,ann,,9\n",
            "line 2: start and stop are '' and '9', expected",
        ),
        (
            "ID,wav,spk_id,stop\nu,a.wav,ann,9\n",
            "line 2: start and stop are None and '9', expected",
        ),
        ("ID,wav,spk_id\nu,a.wav,ann\nv\n", "line 3: it has fewer columns than the header"),
        ("ID,spk_id,wav\nu,ann\n", "line 2: it has fewer columns than the header"),
        (
            "ID,wav,spk_id,stop,start\nu,a.wav,ann,9\n",
            "line 2: it has fewer columns than the header",
        ),
    ],
)
def test_bad_manifest_is_an_error(tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        read_recordings(write(tmp_path, text))


@pytest.mark.parametrize("data", [b'\xef\xbb\xbf"a', None])
def test_unreadable_manifest_is_an_error(tmp_path, data):
    path = tmp_path / "m.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as a manifest"):
        read_recordings(path)
