"""The speaker of a file is found in its path, wherever a pattern says that it is."""

from __future__ import annotations

from itertools import groupby

import pytest

from nip_audio.audio.manifest import walk_audio
from nip_audio.audio.modality import MODALITY
from nip_audio.audio.speakers import SpeakerPattern
from nip_audio.errors import InputError
from nip_audio.screening.sources import FolderSource, find_source


@pytest.mark.parametrize(
    ("pattern", "path", "speaker"),
    [
        ("{speaker}/*/*", "id10001/1zcIwhmdeo4/00001.wav", "id10001"),  # VoxCeleb
        ("wav/{speaker}/**/*", "wav/id10001/1zcIwhmdeo4/00001.wav", "id10001"),
        ("{speaker}/*", "p225/p225_001_mic1.flac", "p225"),  # VCTK
        ("*/{speaker}_*", "p225/p225_001_mic1.flac", "p225"),
        ("{speaker}/*/*", "61/70968/61-70968-0000.flac", "61"),  # LibriSpeech
        ("**/{speaker}-*-*.flac", "61/70968/61-70968-0000.flac", "61"),
        ("**/{speaker}-*-*.flac", "61-70968-0000.flac", "61"),
        ("{speaker}.wav", "ann.b.wav", "ann.b"),
        ("*.{speaker}/*", "a+b.Zoe\u0308 /x.wav", "Zo\u00eb"),
        (r".*/(?P<speaker>p\d+)_\d+_mic1\.flac", "a/b/p225_001_mic1.flac", "p225"),
    ],
)
def test_the_speaker_is_where_the_pattern_says(pattern, path, speaker):
    assert SpeakerPattern(pattern).speaker(path) == speaker


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{speaker}/*/*", "id10001/00001.wav"),
        ("{speaker}/*", "id10001/a/00001.wav"),
        ("{speaker}_*", "_a.wav"),
        ("{speaker}.wav", "axwav"),
        ("(?P<speaker>a)?.*", "b.wav"),
    ],
)
def test_a_path_that_does_not_match_is_an_error(pattern, path):
    with pytest.raises(InputError, match="does not match the pattern .* correct the pattern"):
        SpeakerPattern(pattern).speaker(path)


@pytest.mark.parametrize("pattern", ["", "*/*", "{speaker}/{speaker}", "{speaker}/{chapter}/*"])
def test_a_pattern_names_the_speaker_once(pattern):
    with pytest.raises(InputError, match=r"expected one \{speaker\} and no other braces"):
        SpeakerPattern(pattern)


def test_a_pattern_that_is_no_expression_is_an_error():
    with pytest.raises(InputError, match="expected a regular expression .*unterminated"):
        SpeakerPattern("(?P<speaker>a")


@pytest.fixture
def flat(tmp_path):
    """The first folder is the session, and the speakers take turns."""
    for name in ("one/ann_1.wav", "one/bob_1.wav", "two/ann_2.wav", "two/bob_2.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def source(folder, pattern: str | None):
    return find_source(MODALITY, folder, None, follow_links=False, speaker_from=pattern)


def test_files_of_a_speaker_follow_each_other(flat):
    found = source(flat, "*/{speaker}_*")
    by_speaker = [
        (name, [f.id for f in files]) for name, files in groupby(found, lambda f: f.speaker)
    ]
    assert by_speaker == [
        ("ann", ["one/ann_1.wav", "two/ann_2.wav"]),
        ("bob", ["one/bob_1.wav", "two/bob_2.wav"]),
    ]
    assert found.find("two/bob_2.wav").speaker == "bob"


def test_without_a_pattern_the_first_folder_is_the_speaker(flat):
    assert list(source(flat, None)) == list(walk_audio(flat))
    assert [file.speaker for file in source(flat, None)] == ["one", "one", "two", "two"]


def test_folders_that_are_no_speakers_are_not_spoken_of(flat):
    (flat / "three").mkdir()
    assert FolderSource(flat).survey().without == ("three",)
    found = source(flat, "*/{speaker}_*").survey()
    assert (found.files, found.without, found.too_high) == (4, (), ())


def test_one_file_that_does_not_match_is_an_error(flat):
    (flat / "loose.wav").touch()
    with pytest.raises(InputError, match="loose.wav does not match"):
        list(source(flat, "*/{speaker}_*"))


def test_a_manifest_names_its_speakers(tmp_path):
    (tmp_path / "m.csv").write_text("path,speaker\na.wav,ann\n")
    with pytest.raises(InputError, match="a manifest names its speakers; leave the pattern out"):
        source(tmp_path / "m.csv", "{speaker}/*")
