from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from nip_audio.audio.manifest import Recording
from nip_audio.errors import InputError, OutputError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.records import Finding, ScreenRecord
from nip_audio.screening.results import Results, publishing
from nip_audio.screening.sources import FolderSource, ManifestSource
from nip_audio.workflows.flagged import purify_flagged, shipped_purifier
from nip_audio.workflows.purify_files import FilePurifier


@pytest.fixture
def purifier(screener) -> FilePurifier:
    return FilePurifier(
        screener.pretrained, shipped_purifier(screener.pretrained), screener.adapter
    )


def write(out, *records: ScreenRecord) -> Results:
    with publishing(out) as publication:
        publication.write(records, None)
        return publication.finish({})


def test_purifies_what_is_adversarial_and_nothing_else(purifier, folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    results = write(
        tmp_path,
        ScreenRecord("lonely.flac", None, "adversarial"),
        ScreenRecord("s1/take10.wav", "s1", "inconsistent"),
        ScreenRecord("s1/take11.wav", "s1", "adversarial"),
        ScreenRecord("s2/take11.wav", "s2", "clean"),
    )
    out = tmp_path / "purified"
    run = purify_flagged(results, FolderSource(folder), purifier, out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.wav")) == [
        "lonely.flac.wav",
        "s1/take11.wav",
    ]
    assert (len(run.done), run.earlier, run.failures) == (2, 0, [])
    assert json.loads((out / "s1/take11.json").read_text())["renamed"] in (True, False)
    again = purify_flagged(results, FolderSource(folder), purifier, out)
    assert (again.done, again.earlier) == ([], 2)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_a_file_that_is_gone_is_left_out(purifier, folder, tmp_path):
    results = write(tmp_path, ScreenRecord("s1/gone.wav", "s1", "adversarial"))
    run = purify_flagged(results, FolderSource(folder), purifier, tmp_path / "purified")
    assert [failure.code for failure in run.failures] == ["missing"]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/etc/evil", "a/../../evil", "", "a\0b"),
        "a/" * 1600 + "b",
    ],
    ids=lambda name: ascii(name[:20]),
)
def test_an_id_that_is_no_file_name_ends_nothing(purifier, folder, tmp_path, name):
    results = write(
        tmp_path,
        ScreenRecord(name, "s1", "adversarial"),
        ScreenRecord("good", "s1", "adversarial"),
    )
    source = ManifestSource(
        tmp_path / "m.csv",
        [Recording(one, folder / "s1/take11.wav", "s1", (0, 12000)) for one in (name, "good")],
    )
    run = purify_flagged(results, source, purifier, tmp_path / "purified")
    assert [failure.code for failure in run.failures] == ["bad_name"]
    assert len(run.done) == 1
    assert sorted(path.name for path in tmp_path.rglob("*.wav") if "good" in path.name) == [
        "good.wav"
    ]
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "name", ["x" * 230, "é" * 110, "a\udcff"], ids=lambda name: ascii(name[:20])
)
def test_an_unusual_id_that_is_a_file_name_is_purified(purifier, folder, tmp_path, name):
    results = write(tmp_path, ScreenRecord(name, "s1", "adversarial"))
    source = ManifestSource(
        tmp_path / "m.csv", [Recording(name, folder / "s1/take11.wav", "s1", (0, 12000))]
    )
    run = purify_flagged(results, source, purifier, tmp_path / "purified")
    assert (len(run.done), run.failures) == (1, [])


def test_a_copy_of_what_was_there_before_is_made_again(purifier, folder, tmp_path):
    out, name = tmp_path / "purified", "s1/take11.wav"

    def purified():
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        results = write(tmp_path, ScreenRecord(name, "s1", "adversarial", sha256=sha256))
        return purify_flagged(results, FolderSource(folder), purifier, out)

    assert (len(purified().done), purified().earlier) == (1, 1)
    shutil.copy(folder / "s2/take10.wav", folder / name)  # attacked anew, with another recording
    assert (len(purified().done), purified().earlier) == (1, 1)


@pytest.mark.parametrize(
    "name",
    ["a" * 300, "spk/" + "b" * 251 + ".wav", "\u58f0" * 120 + "/x", "bad\ud800name"],
    ids=["long", "long file", "chinese", "surrogate"],
)
def test_an_id_that_no_file_can_have_is_shortened(purifier, folder, tmp_path, name):
    found = Finding.of("adversarial", "odd")
    results = write(tmp_path, ScreenRecord(name, "s1", "adversarial", (found,)))
    file = Recording(name, folder / "s1/take11.wav", "s1", (0, 12000))
    source = ManifestSource(tmp_path / "m.csv", [file])
    run = purify_flagged(results, source, purifier, tmp_path / "purified")
    assert (len(run.done), run.failures) == (1, [])
    again = purify_flagged(results, source, purifier, tmp_path / "purified")
    assert (len(again.done), again.earlier) == (0, 1)
    (sidecar,) = (tmp_path / "purified").rglob("*.json")
    screening = json.loads(sidecar.read_text())["screening"]
    assert (screening["id"], screening["verdict"]) == (name, "adversarial")
    assert screening["findings"][0]["why"] == "odd"


@pytest.mark.parametrize("inside", ["", "purified", "s1/purified"])
def test_copies_do_not_become_a_speaker_of_the_folder(purifier, folder, tmp_path, inside):
    results = write(tmp_path, ScreenRecord("s1/take11.wav", "s1", "adversarial"))
    before = sorted(folder.rglob("*"))
    (tmp_path / "link").symlink_to(folder)
    for root in (folder, tmp_path / "link"):
        with pytest.raises(OutputError, match="as a new speaker; choose another folder"):
            purify_flagged(results, FolderSource(folder), purifier, root / inside)
    assert sorted(folder.rglob("*")) == before


def test_purifies_the_span_that_was_judged(purifier, folder, tmp_path):
    results = write(tmp_path, ScreenRecord("a", "s1", "adversarial"))
    source = ManifestSource(
        tmp_path / "m.csv", [Recording("a", folder / "s1/take11.wav", "s1", (0, 12000))]
    )
    (done,) = purify_flagged(results, source, purifier, tmp_path / "purified").done
    assert len(done.result.samples) == 12000


def test_says_so_where_no_purifier_came_with_the_model(pretrained):
    data = {k: v for k, v in pretrained.card.data.items() if k != "purifier"}
    bare = PretrainedModel(replace(pretrained.card, data=data), pretrained.model)
    with pytest.raises(InputError, match="comes without a purifier"):
        shipped_purifier(bare)
