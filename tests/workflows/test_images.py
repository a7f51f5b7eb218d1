"""Attacks and purifiers take images by the same road as recordings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nip_audio.errors import AttackError, InputError, OutputError
from nip_audio.image import MODALITY
from nip_audio.image.adapter import ImageAdapter
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import load_pretrained
from nip_audio.purifiers.quantization import Quantization
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.judge import Judge
from nip_audio.workflows.attack import attack_files, make_file_attack
from nip_audio.workflows.clean_data import read_benign
from nip_audio.workflows.files import AttackGoal, PlannedFile
from nip_audio.workflows.purify_files import FilePurifier, plan_files


@pytest.fixture(scope="module")
def lenet():
    return load_pretrained("lenet5-mnist")


@pytest.fixture
def folder(tmp_path):
    for name in ("7/a.png", "7/b.png", "1/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.zeros(1, 28, 28)
        pixels[:, 4:24, 6 + len(name) :] = 0.9
        ImageAdapter().save(pixels, tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture
def worker(lenet):
    purifier = Quantization(bits=2, level="input", bounds=lenet.model.input_bounds)
    return FilePurifier(lenet, purifier, ImageAdapter())


def test_purified_images_keep_their_folders(worker, folder, tmp_path):
    planned = plan_files([folder], tmp_path / "out", modality_of(worker.pretrained.card))
    (done, *_), failures = worker.purify_all(planned)
    assert [f.written.relative_to(tmp_path / "out").as_posix() for f in planned] == [
        "1/a.png",
        "7/a.png",
        "7/b.png",
    ]
    assert not failures
    assert json.loads((tmp_path / "out/1/a.json").read_text()) == done.to_json()
    assert done.linf > 0
    assert "largest change" in done.line


def test_what_the_detector_lets_through_is_not_touched(worker, folder, tmp_path):
    path = worker.pretrained.card.calibration_path
    known = Calibration.load(path, model_id=worker.pretrained.model_id)
    far = replace(known.detector, distances=known.detector.distances * 1e6)
    lax = replace(known, detector=far)  # nothing is far from that
    gated = replace(worker, judge=Judge(lax), only_flagged=True)
    done = gated.purify(PlannedFile(folder / "7/a.png", tmp_path / "out/a.png"))
    assert done.linf == 0


def test_an_image_has_no_plot(worker, folder, tmp_path):
    with pytest.raises(InputError, match="plots show recordings"):
        worker.purify(PlannedFile(folder / "7/a.png", tmp_path / "a.png", plot=True))


def test_attacks_write_what_they_say_and_list_bad_files(lenet, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no image")
    files, told = [folder / "7/b.png", folder / "bad.png"], []
    attack = make_file_attack("fgsm", MODALITY, eps=0.3, settings={})
    given = (lenet, files, tmp_path / "out", attack)
    goal = AttackGoal(None, MODALITY.default_goal)
    done, failures = attack_files(*given, goal, ImageAdapter(), name="fgsm", progress=told.append)
    assert told == [*done, *failures]
    assert [failure.code for failure in failures] == ["not_a_picture"]
    assert json.loads((tmp_path / "out/b.fgsm.json").read_text()) == done[0].to_json()
    with pytest.raises(OutputError, match="exists already"):
        attack_files(*given, goal, ImageAdapter(), name="fgsm")
    aim = AttackGoal(None, target="eleven")
    with pytest.raises(AttackError, match="none of the 10 labels"):
        attack_files(*given, aim, ImageAdapter(), name="fgsm", force=True)


def test_images_have_no_crops(folder):
    with pytest.raises(InputError, match="are for recordings"):
        read_benign([], ImageAdapter(), crop_s=2.0)
