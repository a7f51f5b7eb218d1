"""The shipped models on real recordings; skipped without them, see ``data_root``."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from nip_audio import (
    Batch,
    ReadSettings,
    WaveformAdapter,
    embed_audio,
    list_pretrained,
    load_pretrained,
    read_audio,
)
from nip_audio.attacks.gradient import GradientAttack
from nip_audio.core.metrics import auroc, equal_error_rate
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.evaluation.roles import refuse_overlap
from nip_audio.image.datasets import load_images
from nip_audio.models.identification import identify
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.measure import default_config
from nip_audio.screening.recordings import Recordings
from nip_audio.training.image_training import accuracy
from nip_audio.workflows.attack import attack_file
from nip_audio.workflows.files import AttackGoal
from tests.tolerance import assert_same_but_for_rounding, depth_of

# a little under what docs/results/xvector.md measures on all clips: these are samples of them
ACCURACY_FLOOR = 0.7
EER_CEILING = 0.12

SHIPPED = Path(__file__).parents[2] / "pretrained"


@pytest.fixture(scope="module")
def shipped_calibration(pretrained) -> Calibration:
    assert pretrained.card.calibration_path is not None
    return Calibration.load(pretrained.card.calibration_path, model_id=pretrained.model_id)


@pytest.fixture(scope="module")
def rows(data_root) -> list[dict[str, str]]:
    with (data_root / "LibriSpeech/split.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(data_root: Path, row: dict[str, str]):
    path = data_root / "LibriSpeech" / row["path"]
    start, stop = (round(float(row[column]) * 16000) for column in ("start_s", "end_s"))
    span = (start, min(stop, soundfile.info(path).frames))
    return read_audio(path, ReadSettings(min_duration_s=0.2), span=span)


def test_is_small_enough_to_keep_in_git():
    size = sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file())
    assert size <= 30e6


def test_holds_no_pickle():
    assert {p.suffix for p in SHIPPED.rglob("*") if p.is_file()} <= {
        ".json",
        ".md",
        ".yaml",
        ".safetensors",
    }


NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/model_card.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_within_the_limits_for_models_of_strangers(name, tmp_path):
    copy = load_pretrained(shutil.copytree(SHIPPED / name, tmp_path / name))
    assert not copy.card.shipped
    assert copy.model_id == load_pretrained(name).model_id


@pytest.mark.parametrize("name", NAMES)
def test_its_default_taps_can_be_measured(name):
    """A layer that is never called, as a list of blocks is not, has no output to tap."""
    shipped = load_pretrained(SHIPPED / name)
    generator = torch.Generator().manual_seed(0)
    clip = Batch(0.1 * torch.randn(1, 8000, generator=generator))
    config = default_config(shipped, draws=1)
    if shipped.card.modality == "image":
        clip = Batch(torch.rand(1, *shipped.card.image_shape, generator=generator))
        config = NccrConfig(shipped.card.default_taps, (Noise("gaussian", "input", 0.1),), 1)
    result = measure_nccr(shipped.model, clip, config, generator=torch.Generator().manual_seed(1))
    assert result.vector.shape == (len(config.names),)
    assert (result.vector > 0).all()


def test_card_states_its_metrics_and_training(pretrained):
    data = pretrained.card.data
    assert {"clean", "noise_0.002_rms", "noise_20_db_snr"} <= set(data["metrics"]["closed_set"])
    assert (
        data["metrics"]["verification"]["eer"]["low"]
        < data["metrics"]["verification"]["eer"]["high"]
    )
    assert len(data["labels"]) == 251
    assert data["training"]["split_sha256"]


def test_a_padded_batch_equals_its_single_items(pretrained, rows, data_root):
    picked = [r for r in rows if r["role"] == "test"][::60]
    audios = [read(data_root, row) for row in picked]
    batch = Batch.collate([audio.samples for audio in audios])
    with torch.no_grad():
        together = torch.nn.functional.normalize(pretrained.model.embed(batch), dim=1)
    alone = torch.stack([embed_audio(pretrained, a.samples) for a in audios])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_knows_its_training_speakers_in_noise_too(pretrained, rows, data_root):
    picked = [r for r in rows if r["path"].startswith("train-clean") and r["role"] == "test"][::5]
    truth = [pretrained.card.labels.index(r["speaker"]) for r in picked]
    generator = torch.Generator().manual_seed(0)
    for rms in (0.0, 0.002):
        audios = [read(data_root, row).samples for row in picked]
        noisy = [x + rms * torch.randn(x.shape, generator=generator) for x in audios]
        embeddings = torch.stack([embed_audio(pretrained, x) for x in noisy])
        predicted = pretrained.model.score_embeddings(embeddings).argmax(dim=1)
        assert float((predicted == torch.tensor(truth)).float().mean()) >= ACCURACY_FLOOR


def test_tells_strangers_apart(pretrained, rows, data_root):
    picked = [r for r in rows if r["path"].startswith("test-clean") and r["role"] == "test"][::3]
    embeddings = torch.stack([embed_audio(pretrained, read(data_root, r).samples) for r in picked])
    cosines = (embeddings @ embeddings.T).numpy()
    speakers = np.array([r["speaker"] for r in picked])
    upper = np.triu_indices(len(picked), 1)
    same = (speakers[:, None] == speakers[None])[upper]
    assert equal_error_rate(cosines[upper][same], cosines[upper][~same]).rate <= EER_CEILING


def test_calibration_saw_no_test_item(shipped_calibration, rows, data_root):
    tested = [read(data_root, r).content_sha256 for r in rows[::7] if r["role"] == "test"]
    refuse_overlap(shipped_calibration.seen, tested, what="calibration")


@pytest.mark.slow
def test_detects_attacked_files_among_clean_ones(
    pretrained, shipped_calibration, rows, data_root, tmp_path
):
    """A fast shadow of the table in results/xvector.md: 24 strangers' clips, PGD-10, eps 0.002."""
    picked = [r for r in rows if r["path"].startswith("test-clean") and r["role"] == "test"][::7]
    aim = AttackGoal(shipped_calibration.verification_threshold or 0.0)
    distances: dict[str, list[float]] = {"clean": [], "attacked": []}
    for index, row in enumerate(picked[:24]):
        source = data_root / "LibriSpeech" / row["path"]
        out = tmp_path / f"{index}.wav"
        attack = GradientAttack("pgd", eps=0.002)
        result = attack_file(pretrained, source, out, attack, aim, WaveformAdapter())
        for kind, path in (("clean", source), ("attacked", out)):
            if kind == "clean" or result.fools:
                audio = read_audio(path)
                measured = Recordings(WaveformAdapter()).measure(
                    pretrained,
                    audio,
                    shipped_calibration.detector.probe,
                    seed=0,
                )
                distances[kind].append(shipped_calibration.detector.distance(measured))
    assert len(distances["attacked"]) >= 12
    assert auroc(np.array(distances["attacked"]), np.array(distances["clean"])) >= 0.95
    threshold = shipped_calibration.threshold(0.01)
    assert np.mean(np.array(distances["clean"]) > threshold) <= 0.15


# a little under what docs/results/models.md measures: every fifth clip is a sample
IDENTIFICATION_FLOORS = {
    "audionet-libri251": 0.45,
    "deep-speaker-libri30": 0.65,
    "resnet34-libri30": 0.75,
}


@pytest.mark.parametrize("name", sorted(IDENTIFICATION_FLOORS))
def test_names_its_own_speakers(name, rows, data_root):
    model = load_pretrained(name)
    tested = [r for r in rows if r["role"] == "test" and r["speaker"] in model.card.labels][::5]
    audios = [read(data_root, row) for row in tested]
    refuse_overlap(
        model.card.data["training"]["seen"], (a.content_sha256 for a in audios), what=name
    )
    right = [
        identify(model, audio.samples, top=1)[0].speaker == row["speaker"]
        for row, audio in zip(tested, audios, strict=True)
    ]
    assert len(right) > 30
    assert np.mean(right) >= IDENTIFICATION_FLOORS[name]


IMAGE_FLOORS = {
    "lenet5-mnist": ("mnist", 0.98),
    "resnet20-gtsrb": ("gtsrb_subset", 0.92),
    "vgg-cifar10": ("cifar10_subset", 0.7),
}


@pytest.mark.parametrize("name", sorted(IMAGE_FLOORS))
def test_names_its_own_pictures(name, data_root):
    data, floor = IMAGE_FLOORS[name]
    model = load_pretrained(SHIPPED / name)
    _, rows, columns = model.card.image_shape
    tested = load_images(data, "test", folder=data_root / "images").resized(rows, columns)
    assert accuracy(model.model, tested.rows(torch.arange(400))) >= floor


OF_SOUND = [card for card in list_pretrained() if card.modality == "audio"]


@pytest.mark.parametrize("card", OF_SOUND, ids=lambda card: card.name)
def test_speechbrain_loads_it_too_and_agrees(card, tmp_path, voice):
    waves = torch.from_numpy(np.stack([voice(0, 0), voice(1, 0)]))
    theirs = EncoderClassifier.from_hparams(source=str(card.directory), savedir=str(tmp_path))
    scores, _, index, names = theirs.classify_batch(waves)
    ours = load_pretrained(card.directory).model.scores(Batch(waves))
    assert_same_but_for_rounding(scores, ours, depth=depth_of(theirs.mods))
    assert names == [card.labels[int(i)] for i in index]


@pytest.mark.parametrize("name", ["lenet5-mnist", "vgg-cifar10"])
def test_shipped_calibrations_of_pictures_load(name):
    pretrained = load_pretrained(SHIPPED / name)
    known = Calibration.load(pretrained.card.calibration_path, model_id=pretrained.card.model_id)
    assert known.threshold(0.01) > known.threshold(0.05)
