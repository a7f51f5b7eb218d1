"""``nip-audio calibrate`` with attacks, from clean recordings to a verdict."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nip_audio.cli import main
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.lessons import PURIFIED
from nip_audio.screening.nccr_detector import NccrDetector
from nip_audio.screening.probes import Place
from nip_audio.screening.response import ResponseDetector
from nip_audio.workflows import calibrate
from tests.lessons import FEW_ATTACKS, FEW_CHANGES, teach_little
from tests.small_ecapa import write_ecapa

SPEAKERS, TAKES = 10, 4


@pytest.fixture(scope="module")
def speech(tmp_path_factory, voice) -> Path:
    """Ten speakers, four takes each: half of them are enough for a calibration."""
    root = tmp_path_factory.mktemp("speech")
    for speaker in range(SPEAKERS):
        for take in range(TAKES):
            path = root / f"s{speaker}" / f"take{take}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, voice(speaker, take, 0.6), 16000, "PCM_16")
    return root


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        teach_little(patch)
        yield


@pytest.fixture(scope="module")
def without_purifier(tmp_path_factory) -> Path:
    """An adopted model as it comes; only to be read."""
    root = tmp_path_factory.mktemp("model")
    assert main(["adopt", str(write_ecapa(root)), "--out", str(root / "adopted")]) == 0
    return root / "adopted"


@pytest.fixture(scope="module")
def calibrated(without_purifier, speech, quick, tmp_path_factory):  # noqa: ARG001
    """The model with a calibration that was written into its directory, and what was said."""
    model = Path(shutil.copytree(without_purifier, tmp_path_factory.mktemp("c") / "adopted"))
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("nip_audio.cli.calibrate.stdout.print", lambda x, **_: said.append(x))
        patch.setattr("nip_audio.cli.calibrate.stdout.say", said.append)
        code = main(["calibrate", str(speech), "--model", str(model), "-o", str(model / "cal")])
    assert code == 0
    return model, said


def test_the_card_names_the_calibration_and_the_purifier_that_was_made_for_it(calibrated):
    model, said = calibrated
    pretrained = load_pretrained(model)
    assert pretrained.card.calibration_path == model / "cal"
    assert pretrained.card.purifier_path == model / "cal.purifier"
    assert not (model / "cal.partial").exists()
    made = Calibration.load(model / "cal", model_id=pretrained.model_id)
    purifier = GuidedNip.load(model / "cal.purifier", model_id=pretrained.model_id)
    assert isinstance(made.detector, ResponseDetector)
    assert made.detector.probe.purifier.settings() == purifier.settings()
    # half of the speakers is for each, and an evaluation may use neither
    assert made.files == len(purifier.seen) == SPEAKERS * TAKES / 2
    assert len(made.seen) == SPEAKERS * TAKES
    assert purifier.seen < set(made.seen)
    assert tuple(made.detector.scores) == (*FEW_CHANGES, PURIFIED)
    assert made.narrow_domain is not None
    assert said[-3].startswith("calibrated on 20 files, which allow a false-positive rate of 4.76%")
    assert said[-2].startswith("farthest from the others, which decides what is flagged; listen")
    assert said[-1].endswith("uses it by default")


def test_the_table_says_what_is_found_and_what_is_mistaken(calibrated):
    table = calibrated[1][0]
    first, share = table.columns
    changes = ["as recorded", "white noise at 5 to 45 dB", "8 kHz", PURIFIED]
    names = [*(attack.name for attack in FEW_ATTACKS), *changes]
    assert list(first.cells) == names
    assert (first.header, share.header) == ("made from these recordings", "flagged at 5%")
    for cell in share.cells:
        assert 0 <= float(cell.removesuffix("%")) <= 100
    # the thresholds come of these very windows, of which at most one in twenty may be above
    harmless = [float(cell.removesuffix("%")) for cell in list(share.cells)[-len(changes) :]]
    assert max(harmless) <= 5


def test_detect_and_screen_use_it(calibrated, run, speech, tmp_path):
    model, _ = calibrated
    given = ("--model", model, "--fpr", 0.05)
    takes = [soundfile.read(speech / f"s1/take{i}.wav")[0] for i in range(TAKES)]
    found = []
    for seconds in (1.5, 6.0):
        quiet = 1e-4 * np.random.default_rng(0).standard_normal((2, round(16000 * seconds)))
        long = np.concatenate([quiet[0], *takes, quiet[1][::-1]])
        soundfile.write(tmp_path / "long.wav", long, 16000, "PCM_16")
        code, out, err = run("detect", tmp_path / "long.wav", *given, "--json")
        assert code in (0, 3), err
        (record,) = json.loads(out)
        assert record["duration_s"] == pytest.approx(2.4 + 2 * seconds)
        # the hiss, of one step of 16 bits, is silence
        assert record["sound_s"] == pytest.approx(2.4, abs=0.05)
        assert seconds - 0.15 <= record["window_s"] < seconds + 2.4
        words = (
            "as recorded",
            r"white noise at \d+ dB",
            "8 kHz",
            PURIFIED,
            r"an attack \(\w+, ε 0\.\d+\)",
        )
        assert any(re.fullmatch(word, record["resembles"]) for word in words)
        risks = [finding["risk"] for finding in record["findings"]]
        assert ("adversarial" in risks) == (record["distance"] > record["distance_threshold"])
        found.append(record)
    # how much silence there is plays no part; other hiss lies beside the sound, and is drawn anew
    short, long = found
    assert long["domain_distance"] == pytest.approx(short["domain_distance"], rel=0.05)
    assert long["distance_threshold"] == short["distance_threshold"]
    assert long["distance"] == pytest.approx(short["distance"], rel=0.3)
    code, _, err = run("screen", speech / "s1", *given, "--out", tmp_path / "out")
    assert code in (0, 3, 4, 5), err
    lines = (tmp_path / "out/results.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines):
        flagged = record["distance"] > record["distance_threshold"]
        assert flagged == ("adversarial" in [one["risk"] for one in record["findings"]])
        assert record["sound_s"] == pytest.approx(0.6, abs=1e-6)


def test_a_model_with_a_purifier_keeps_it_and_calibrates_on_all_files(
    calibrated, run, speech, tmp_path, quick
):
    model, _ = calibrated
    before = (model / "cal.purifier").read_bytes()
    own, few = tmp_path / "own", tmp_path / "few"
    for speaker in range(5):
        shutil.copytree(speech / f"s{speaker}", few / f"s{speaker}")
    low, _ = soundfile.read(few / "s0/take0.wav")
    soundfile.write(few / "s0/take0.wav", low[::2], 8000, "PCM_16")
    code, out, err = run("calibrate", few, "--model", model, "--out", own, "--json")
    assert code == 0, err
    assert "1 of 20 recordings are sampled below 16000 Hz" in " ".join(err.split())
    found = json.loads(out)
    assert found.keys() == {
        *("out", "files", "failed", "model_id", "found", "mistaken", "allowed_rate"),
        *("thresholds", "telephone_thresholds", "verification_threshold"),
        "farthest",
    }
    assert len(found["farthest"]) == 5
    made = Calibration.load(own, model_id=found["model_id"])
    assert found["thresholds"].keys() == found["telephone_thresholds"].keys() == {"0.05", "0.1"}
    assert found["thresholds"]["0.05"] == made.threshold(0.05)
    assert found["telephone_thresholds"]["0.1"] == made.threshold(0.1, Place(narrow=True))
    assert found["verification_threshold"] == made.verification_threshold
    assert (found["out"], found["files"], found["failed"]) == (str(own), 5 * TAKES, [])
    assert list(found["found"]) == [attack.name for attack in FEW_ATTACKS]
    assert list(found["mistaken"]) == [*FEW_CHANGES, PURIFIED]
    for shares in (*found["found"].values(), *found["mistaken"].values()):
        assert shares.keys() == {"0.05"}  # 20 files do not allow 1 %
        assert 0 <= shares["0.05"] <= 1
    assert (model / "cal.purifier").read_bytes() == before
    assert not own.with_name("own.purifier").exists()
    assert load_pretrained(model).card.calibration_path == model / "cal"  # another one lies apart


def test_a_calibration_that_was_interrupted_goes_on(
    without_purifier, speech, quick, tmp_path, monkeypatch
):
    model = Path(shutil.copytree(without_purifier, tmp_path / "adopted"))
    given = ["calibrate", str(speech), "--model", str(model), "--out", str(model / "cal")]

    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nip_audio.screening.learning.attacked_lesson", interrupted)
        assert main(given) == 130
    assert not (model / "cal").exists()
    assert any((model / "cal.partial").iterdir())
    purifier = (model / "cal.purifier").read_bytes()

    def never(*args, **settings):
        raise AssertionError("the purifier is there")

    monkeypatch.setattr(calibrate, "fit_purifier", never)
    assert main(given) == 0
    assert (model / "cal.purifier").read_bytes() == purifier
    made = Calibration.load(model / "cal", model_id=load_pretrained(model).model_id)
    # the card names the purifier now, whose speakers are still left out
    assert made.files == SPEAKERS * TAKES / 2


def test_clean_only_makes_no_attacks(without_purifier, run, clean_folder, tmp_path):
    given = ("calibrate", clean_folder, "--model", without_purifier, "--clean-only")
    code, out, err = run(*given, "--draws", 1, "--out", tmp_path / "c", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["files"], found["found"], found["mistaken"]) == (32, {}, {})
    assert found["allowed_rate"] == 1 / 33
    assert found["thresholds"].keys() == {"0.05", "0.1"}
    assert "telephone_thresholds" not in found
    assert "clean-only" not in err  # it was asked for
    made = Calibration.load(tmp_path / "c", model_id=found["model_id"])
    assert isinstance(made.detector, NccrDetector)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_too_few_speakers_for_a_purifier_are_refused_before_it_is_fitted(
    without_purifier, run, clean_folder, tmp_path
):
    """Of 32 files of eight speakers, half are too few."""
    given = ("calibrate", clean_folder, "--model", without_purifier, "--out", tmp_path / "c")
    code, _, err = run(*given)
    assert code == 65
    words = " ".join(err.split())
    assert "16 files of 4 speakers are left, expected at least 20 of 5" in words
    assert "or use --clean-only" in words
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [("--draws", 2), ("--tolerate-noise", 0.01)])
def test_settings_of_clean_only_are_refused_without_it(option, run, clean_folder, tmp_path):
    code, _, err = run("calibrate", clean_folder, "--out", tmp_path / "c", *option)
    assert code >= 64
    assert "belong to --clean-only, expected it as well" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


BOX = """
import torch
from torch import nn


class Box(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 12, 400, stride=160)
        self.last = nn.Linear(24, 12)

    def forward(self, x):
        with torch.no_grad():
            y = torch.log(self.first(x.unsqueeze(1)).square() + 1e-4)
            return self.last(torch.cat([y.mean(2), y.amax(2)], 1))


def make():
    torch.manual_seed(0)
    return Box().eval()
"""


def test_a_black_box_falls_back_to_clean_only_and_says_so(run, clean_folder, tmp_path, monkeypatch):
    (tmp_path / "boxed_nets.py").write_text(BOX)
    monkeypatch.syspath_prepend(tmp_path)
    model, own = tmp_path / "adopted", tmp_path / "own"
    assert run("adopt", "python:boxed_nets:make", "--out", model)[0] == 0
    code, out, err = run("calibrate", clean_folder, "--model", model, "--out", own)
    assert code == 0, err
    assert "no gradient reaches the waveform" in " ".join(err.split())
    assert "takes noise for an attack more often" in " ".join(err.split())
    assert "made from these recordings" not in out
    assert "calibrated on 32 files" in out
    made = Calibration.load(own, model_id=load_pretrained(model).model_id)
    assert isinstance(made.detector, NccrDetector)
