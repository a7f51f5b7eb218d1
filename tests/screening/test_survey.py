"""What a folder holds besides recordings is counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from nip_audio.audio.modality import MODALITY
from nip_audio.errors import InputError
from nip_audio.image.modality import MODALITY as IMAGES
from nip_audio.screening.sources import FolderSource
from nip_audio.screening.survey import Survey, survey_folder


def surveyed(root: Path, *names: str, leave_out: Path | None = None) -> Survey:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return survey_folder(root, MODALITY.suffixes, leave_out=leave_out)


def test_files_passed_over_are_counted_by_ending_and_named(tmp_path):
    (tmp_path / "empty").mkdir()
    found = surveyed(tmp_path, "ann/a.wav", "ann/a.txt", "ann/b.TXT", "bob/notes", "bob/x.docx")
    assert (found.files, found.passed_over) == (1, 4)
    assert found.endings == {"": 1, ".docx": 1, ".txt": 2}
    assert found.names == ("ann/a.txt", "ann/b.TXT", "bob/notes", "bob/x.docx")
    assert found.without == ("bob", "empty")
    assert found.notes(MODALITY) == [
        "4 of 5 files passed over, because their endings are not those of recordings: 2 .txt, "
        "1 without an ending, 1 .docx (ann/a.txt, ann/b.TXT, bob/notes, bob/x.docx)",
        "no recordings in bob, empty",
    ]


def test_hidden_folders_are_named(tmp_path):
    found = surveyed(tmp_path, "ann/a.wav", ".Trash-1000/b.wav", "ann/._a.wav")
    assert found.hidden == (".Trash-1000/", "ann/._a.wav")
    assert found.without == ()
    (note,) = found.notes(MODALITY)
    assert note.startswith("skipped as hidden, or as folders of the system: .Trash-1000/, ann/._a")


@pytest.mark.parametrize(
    ("names", "parts", "speakers"),
    [
        (("wav/id1/v/1.wav", "wav/id2/v/1.wav"), ("wav",), ("id1", "id2")),
        (
            ("dev-clean/84/1/a.flac", "train-clean-100/19/1/a.flac"),
            ("dev-clean", "train-clean-100"),
            ("19", "84"),
        ),
        (("wav48_silence_trimmed/p1/a.flac", "wav48_silence_trimmed/p2/b.flac", "txt/p1/a.txt"),)
        + (("wav48_silence_trimmed",), ("p1", "p2")),
    ],
)
def test_a_folder_one_level_too_high_is_noticed(tmp_path, names, parts, speakers):
    found = surveyed(tmp_path, *names)
    assert (found.parts, found.too_high) == (parts, speakers)
    note = found.notes(MODALITY)[-1]
    assert f"if the speakers are {', '.join(speakers)}, pass the folder" in note
    assert "speaker" not in " ".join(found.notes(IMAGES))


@pytest.mark.parametrize(
    "names",
    [
        ("ann/a.wav", "bob/b.wav"),
        ("84/1/a.wav", "84/2/b.wav", "19/1/a.wav"),  # chapters below speakers
        ("wav/a.wav", "wav/b.wav"),
        ("wav/s1/a.wav",),
        ("loose.wav", "wav/s1/a.wav", "wav/s2/a.wav"),
        (),
    ],
)
def test_a_folder_of_speakers_is_not(tmp_path, names):
    assert surveyed(tmp_path, *names).too_high == ()


def test_many_names_are_cut_in_words_and_at_a_hundred(tmp_path):
    found = surveyed(tmp_path, "a/a.wav", *(f"a/{i:03d}.txt" for i in range(120)))
    assert found.passed_over == 120
    assert len(found.to_json()["names"]) == 100
    assert "a/004.txt and 115 more)" in found.notes(MODALITY)[0]


def test_results_in_the_folder_are_not_spoken_of(tmp_path):
    names = ("ann/a.wav", "report/results.jsonl", "report/page/x.html")
    found = surveyed(tmp_path, *names, leave_out=tmp_path / "report")
    assert found.notes(MODALITY) == []
    assert surveyed(tmp_path, leave_out=tmp_path.parent).passed_over == 2


def test_a_run_tells_it_in_its_summary(screener, folder, tmp_path):
    (folder / "s1" / "take.xyz").touch()
    (folder / "ghost").mkdir()
    summary = screener.screen(FolderSource(folder), tmp_path / "out").summary
    assert summary.passed_over["endings"] == {".xyz": 1}
    assert summary.passed_over["names"] == ["s1/take.xyz"]
    assert summary.passed_over["groups_without_files"] == ["ghost"]
    assert summary.notes[0].startswith("1 of 11 files passed over")
    assert summary.notes[1] == "no recordings in ghost"


def test_an_empty_run_says_what_was_passed_over(screener, tmp_path):
    surveyed(tmp_path / "in", "a/x.txt")
    with pytest.raises(InputError, match=r"no audio file in .*\. 1 of 1 files passed over"):
        screener.screen(FolderSource(tmp_path / "in"), tmp_path / "out")
