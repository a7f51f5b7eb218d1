"""The whole way, on synthetic voices: attacks, defences, results, page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nip_audio.audio.io import ReadSettings, read_audio
from nip_audio.errors import InputError
from nip_audio.evaluation.config import read_config
from nip_audio.purifiers.inverse_net import InverseNet
from nip_audio.purifiers.nip_guided import GuidedNip
from studies.verification import measure, page, trials
from studies.verification import study as study_module
from studies.verification.study import VerificationStudy


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr(trials, "_ROUNDS", 10)


@pytest.fixture
def purifier(tmp_path, pretrained):
    """Write a purifier for the model; ``seen`` is what it was trained on."""

    def write(seen=(), model_id=pretrained.model_id) -> Path:
        guided = GuidedNip(InverseNet(1, width=2), bounds=pretrained.model.input_bounds, seen=seen)
        guided.save(tmp_path / "x.guided", model_id=model_id, force=True)
        return tmp_path / "x.guided"

    return write


@pytest.fixture
def write(write_config, purifier):
    """Write a small configuration of two attacks and a purifier."""

    def small(**changes) -> Path:
        purifier()
        system = {"model": "xvector-libri251", "subset": "voices", "crop_s": 0.5, "enrol": True}
        return write_config(
            **{
                "systems": {"x": system},
                "attacks": [
                    {"attack": "fgsm", "eps": [0.01], "items": 6, "batch": 6},
                    {"attack": "pgd-l2", "eps": [0.5], "items": 3, "settings": {"steps": 2}},
                ],
                "defences": [{"name": "guided", "path": "{system}.guided"}],
                **changes,
            }
        )

    return small


def test_recipe_from_voices_to_page(write, tmp_path, monkeypatch):
    results, out = tmp_path / "results.json", tmp_path / "out"
    command = ["verification.py", str(write()), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    measure.main()
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert len(files) == 2 * 2 * 2 * 2 + 2 * 2  # verifiers, sides, attacks, goals; controls
    monkeypatch.setattr(sys, "argv", [*command, "--results", str(results)])
    measure.main()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == files
    whole = results.read_text()
    next(out.rglob("plda-test-pgd-l2/*")).unlink()
    monkeypatch.setattr(sys, "argv", [*command, "--results", str(results), "--only-finished"])
    measure.main()
    (missing,) = json.loads(results.read_text())["unfinished"]
    assert (missing["back_end"], missing["side"], missing["attack"]) == ("plda", "test", "pgd-l2")
    assert len(json.loads(results.read_text())["cells"]) == 9
    results.write_text(whole)

    found = json.loads(results.read_text())
    assert (found["speakers"], found["targets"], found["impostors"]) == (6, 6, 6)
    assert found["targets_of_one_chapter"] == 6  # the corpus has one folder a speaker
    assert found["defences"]["guided"]["seen_of_the_speakers"] == 0
    cells, controls = found["cells"][:8], found["cells"][8:]
    assert [(c["back_end"], c["side"], c["attack"], c["targets"]) for c in cells] == [
        (back_end, side, attack, count)
        for attack, count in (("fgsm", 6), ("pgd-l2", 3))
        for back_end in ("cosine", "plda")
        for side in ("test", "enrolment")
    ]
    for cell in controls:
        assert cell["contrary"]
        bare = cell["rows"][0]
        assert bare["attacked"]["eer"]["value"] <= bare["clean"]["eer"]["value"]
        assert bare["recovered"] is None
    for cell in cells:
        assert not cell["contrary"]
        rows = {row["defence"]: row for row in cell["rows"]}
        assert list(rows) == ["no defence", "noise 20 dB", "guided", "noise as strong as guided"]
        bare = rows["no defence"]
        assert bare["attacked"]["eer"]["value"] > bare["clean"]["eer"]["value"]
        assert bare["recovered"]["value"] == bare["returned"]["value"] == 0.0
        lost = bare["attacked"]["eer"]["value"] - bare["clean"]["eer"]["value"]
        for row in rows.values():
            back = bare["attacked"]["eer"]["value"] - row["attacked"]["eer"]["value"]
            assert row["recovered"]["value"] == pytest.approx(back / lost, abs=1e-3)
        assert cell["turned"] <= cell["right_before"] <= 2 * cell["targets"]
        assert cell["turned"] > 0

    text = tmp_path / "page.md"
    text.write_text(page.PAGE.made_from({"verification": found}, partial=True))
    assert "| guided |" in text.read_text()
    assert not re.search(r"\{\w+\}", text.read_text())  # nothing is left to fill in


@pytest.fixture
def study(write) -> VerificationStudy:
    return VerificationStudy.build(read_config(write()))


def contents(corpus: Path, take: int) -> str:
    settings = ReadSettings(16000, min_duration_s=0.2)
    return read_audio(
        corpus / "voices" / "s0" / f"take{take}.flac", settings, span=(0, 16000)
    ).content_sha256


@pytest.mark.parametrize(("take", "refused"), [(0, False), (2, True), (3, True)])
def test_a_purifier_may_have_seen_the_train_role_and_no_other(
    study, purifier, corpus, take, refused
):
    """Of takes 0 and 1 are the thresholds, from take 2 voices are enrolled, 3 and 4 are tested."""
    purifier(seen=[contents(corpus, take)])
    used = {c.content_sha256 for t in study.trials for c in (t.enrolment, t.test)}
    assert (contents(corpus, take) in used) == refused
    if refused:
        with pytest.raises(InputError, match="1 test items were seen when the defence guided was"):
            study.defences()
    else:
        described = study.describe(study.defences())
        assert described["defences"]["guided"]["seen_of_the_speakers"] == 1


def test_where_the_test_side_is_attacked_the_enrolment_is_trusted(study):
    """Purified it is only where it is attacked itself."""
    noise = next(defence for defence in study.defences() if defence.name == "noise 20 dB")
    score = study.verifiers["cosine"].score
    test_side, enrolment_side = list(study.cells())[:2]
    for cell, voices in ((test_side, noise.trusted), (enrolment_side, noise.enrolled)):
        clean, _ = noise.scores(cell, trials.clips_of(cell.attack.trials, cell.attack.side))
        assert (clean == score(voices[cell.rows], noise.tested[cell.rows])).all()
    assert not noise.trusted.equal(noise.enrolled)


def test_a_verifier_that_knows_a_test_recording_is_an_error(write, corpus, monkeypatch):
    known = frozenset([contents(corpus, 3)])
    made = study_module._verifiers

    def knowing(pretrained):
        return [replace(v, seen=known) for v in made(pretrained)]

    monkeypatch.setattr(study_module, "_verifiers", knowing)
    with pytest.raises(
        InputError, match="1 test items were seen when the cosine verifier was fitt"
    ):
        VerificationStudy.build(read_config(write()))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"systems": {"x": {"model": "xvector-libri251", "subset": "voices"}}}, "crop_s None"),
        (
            {"attacks": [{"attack": "pgd", "eps": [0.01], "protocol": "adaptive"}]},
            "pgd is adaptive at level 'raw', expected unaware",
        ),
        (
            {"attacks": [{"attack": "pgd", "eps": [0.01], "level": "input"}]},
            "pgd is unaware at level 'input'",
        ),
    ],
)
def test_what_is_not_implemented_is_an_error(write, changes, match):
    with pytest.raises(InputError, match=match):
        VerificationStudy.build(read_config(write(**changes)))
