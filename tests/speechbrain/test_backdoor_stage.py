"""The search as a stage; who is accused is the detector's matter and tested there."""

from __future__ import annotations

import json

import pytest
from speechbrain.dataio.dataset import DynamicItemDataset

from nip_audio.errors import ModelCardError, StateError
from nip_audio.screening.backdoor import BackdoorRecord, BackdoorReport
from nip_audio.speechbrain import backdoor_stage
from nip_audio.speechbrain.backdoor_stage import BackdoorSearch


@pytest.fixture
def dataset(folder):
    return DynamicItemDataset(
        {
            f"{path.parent.name}-{path.stem}": {"wav": str(path), "spk_id": path.parent.name}
            for path in sorted(folder.glob("s*/*.wav"))
        }
    )


@pytest.fixture
def asked(monkeypatch):
    """Stand in for the search: take11 is accused, s2-take12 cannot be read."""
    calls = []

    def look(pretrained, recordings, adapter, *, seed):
        calls.append((pretrained.model_id, seed, [r.id for r in recordings]))
        records = tuple(
            BackdoorRecord(r.id, r.speaker, accused=r.id.endswith("take11"))
            if r.id != "s2-take12"
            else BackdoorRecord(r.id, r.speaker, error={"code": "empty"})
            for r in recordings
        )
        return BackdoorReport((), records, 6.0)

    monkeypatch.setattr(backdoor_stage, "look_for_backdoor", look)
    return calls


def test_the_accused_are_dropped(dataset, pretrained, asked, tmp_path):
    search = BackdoorSearch(pretrained, tmp_path / "out", seed=3)
    kept = search(dataset)
    assert kept.data_ids == ["s0-take10", "s0-take12", "s1-take10", "s1-take12", "s2-take10"]
    assert search.report["accused"] == ["s0-take11", "s1-take11", "s2-take11"]
    assert asked == [(pretrained.model_id, 3, dataset.data_ids)]
    assert len(dataset) == 9


def test_the_same_question_is_answered_from_the_folder(dataset, pretrained, asked, tmp_path):
    first = BackdoorSearch(pretrained, tmp_path / "out")
    again = BackdoorSearch("xvector-libri251", str(tmp_path / "out"))
    assert first(dataset).data_ids == again(dataset).data_ids
    assert len(asked) == 1
    assert again.report == first.report


@pytest.mark.parametrize("change", ["seed", "file", "set", "model"])
def test_another_question_is_asked_anew(dataset, pretrained, asked, tmp_path, change, folder):
    BackdoorSearch(pretrained, tmp_path / "out")(dataset)
    seed, model = 0, pretrained
    if change == "seed":
        seed = 1
    elif change == "file":
        with (folder / "s0" / "take10.wav").open("ab") as file:
            file.write(b"\0\0")
    elif change == "set":
        del dataset.data["s0-take10"]
        dataset.data_ids.remove("s0-take10")
    else:
        model = "audionet-libri251"
    BackdoorSearch(model, tmp_path / "out", seed=seed)(dataset)
    assert len(asked) == 2
    assert asked[0] != asked[1] or change == "file"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"identity": 1, "report": 2, "x"'])
def test_a_damaged_report_is_refused(dataset, pretrained, asked, tmp_path, text):
    (tmp_path / "backdoor.json").write_text(text)
    with pytest.raises(StateError, match=r"backdoor\.json is damaged .*; remove it"):
        BackdoorSearch(pretrained, tmp_path)(dataset)
    assert asked == []


def test_the_report_is_plain_json(dataset, pretrained, asked, tmp_path):
    BackdoorSearch(pretrained, tmp_path)(dataset)
    kept = json.loads((tmp_path / "backdoor.json").read_text())
    assert kept["report"]["failed"] == ["s2-take12"]


def test_the_model_must_be_there(tmp_path):
    with pytest.raises(ModelCardError, match="no model 'nobody'"):
        BackdoorSearch("nobody", tmp_path)
