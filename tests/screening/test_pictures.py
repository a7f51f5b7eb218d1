"""What a screening keeps of pictures, and the calibrations that judge them."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from nip_audio.audio.condition import Condition
from nip_audio.audio.manifest import walk_files
from nip_audio.detectors.fitted import FittedDensity
from nip_audio.errors import CalibrationError, ImageError, InputError, ResumeError, StateError
from nip_audio.image.adapter import Image, ImageAdapter
from nip_audio.models.modalities import reader_of_json
from nip_audio.models.pretrained import load_pretrained
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.calibration import Calibration
from nip_audio.screening.details import ImageDetails, RecordingDetails
from nip_audio.screening.engines.base import MeasurerRecipe
from nip_audio.screening.images import Images
from nip_audio.screening.journal import from_line, to_line
from nip_audio.screening.judge import Judge
from nip_audio.screening.measured import RETRY, FileFacts, Heard, MeasuredFile, Measurement
from nip_audio.screening.modalities import kind_of
from nip_audio.screening.pipeline import Screener
from nip_audio.screening.recordings import Recordings
from nip_audio.screening.records import Finding, ScreenRecord

SHIPPED = ("lenet5-mnist", "vgg-cifar10")
MNIST = ImageAdapter(1, 28, 28)


@pytest.fixture(scope="module")
def lenet():
    return load_pretrained("lenet5-mnist")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Twenty-four pictures, each of a blot of its own."""
    folder = tmp_path_factory.mktemp("blots")
    generator = torch.Generator().manual_seed(0)
    for i in range(24):
        pixels = torch.zeros(1, 28, 28)
        pixels[:, 4 + i % 8 : 14 + i % 8, 6 + i // 8 : 16 + i // 8] = 0.9
        pixels += 0.1 * torch.rand(1, 28, 28, generator=generator)
        MNIST.save(pixels, folder / f"{i:02d}.png")
    return list(walk_files(folder, MNIST.suffixes))


@pytest.fixture(scope="module")
def fitted(lenet, files) -> Calibration:
    return calibrate(lenet, files, MNIST, sources="blots")


@pytest.fixture
def screener(lenet, fitted) -> Screener:
    return Screener(lenet, Judge(fitted, 0.05), MNIST)


@pytest.fixture
def measured(screener, files) -> MeasuredFile:
    return screener.measurer(files[0])


# --- journal and records ---


def test_a_line_of_the_journal_is_read_as_it_was(measured):
    read = from_line(to_line(measured))
    assert read.facts == measured.facts
    assert read.measurement.named == measured.measurement.named
    assert np.array_equal(read.measurement.evidence, measured.measurement.evidence)


def with_checksum(data: dict[str, Any]) -> bytes:
    text = json.dumps(data).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def test_a_line_of_two_kinds_is_refused(measured):
    def content() -> dict[str, Any]:
        return json.loads(to_line(measured).partition(b" ")[2])

    data = content()
    data["facts"] = {
        **dict.fromkeys((field.name for field in fields(FileFacts)), 1),
        **{"encoding": "WAV", "sha256": "00", "content_sha256": "00", "changes": []},
        "duration_s": 1.0,
        "clipped_share": 0.0,
        "condition": {"bandwidth_hz": 8000.0, "dropouts": 0, "dropped_share": 0.0},
        "heard": asdict(Heard(1.0)),
    }
    with pytest.raises(ResumeError, match="different modalities"):
        from_line(with_checksum(data))
    data = content()
    data["measurement"]["named"] = 3
    with pytest.raises(ResumeError, match="named is a int"):
        from_line(with_checksum(data))
    data["measurement"] = {"spectrum": ""}
    with pytest.raises(ResumeError, match="measurement is a dict"):
        from_line(with_checksum(data))


def test_a_record_of_a_picture_is_read_as_it_was(screener, measured):
    record = screener.judge.judge(replace(measured, speaker="7"), q_value=0.5)
    read = ScreenRecord.from_line(record.to_line())
    assert isinstance(read.details, ImageDetails)
    assert read.to_json() == record.to_json()
    assert (read.details.height, read.details.width, read.encoding) == (28, 28, "PNG/L")
    sound = ScreenRecord("a.wav", "ann", "clean", details=RecordingDetails(duration_s=1.0))
    assert ScreenRecord.from_line(sound.to_line()) == sound
    with pytest.raises(ResumeError, match="expected a ScreenRecord"):
        ScreenRecord.from_line(json.dumps(json.loads(record.to_line()) | {"duration_s": 1.0}))


def test_another_process_measures_the_same(screener, files, measured):
    made = MeasurerRecipe.of(screener.measurer).make()
    assert to_line(made(files[0])) == to_line(measured)


def test_settings_say_how_pictures_are_read(screener, lenet):
    read = json.loads(json.dumps(screener.adapter.to_json()))
    assert reader_of_json(read) == MNIST
    assert isinstance(kind_of(reader_of_json(read)), Images)
    assert screener.measurement_settings()["read"] == read


def test_settings_of_recordings_are_read_back():
    kind = kind_of(reader_of_json({"sample_rate_hz": 8000}))
    assert isinstance(kind, Recordings)
    assert kind.reader.settings.sample_rate_hz == 8000
    with pytest.raises(TypeError):
        reader_of_json({"height": 3})


# --- sizes ---


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ((28, 28), None),
        ((200, 200), None),
        ((17, 17), None),
        ((16, 28), "enlarged 1.8 times"),
        ((16, 16), "enlarged 1.8 times"),
        ((28, 57), "2.0 times as much"),
        ((1, 1), "enlarged 28.0 times"),
    ],
)
def test_the_size_of_the_file_is_judged(screener, measured, size, found):
    height, width = size
    scales = (height / 28, width / 28)
    facts = replace(
        measured.facts,
        height=height,
        width=width,
        scale=min(scales),
        stretch=max(scales) / min(scales),
    )
    record = screener.judge.judge(replace(measured, facts=facts))
    said = [f.why for f in record.findings if f.risk == "out_of_domain"]
    assert (said == []) == (found is None)
    assert found is None or any(found in why for why in said)


def test_a_calibration_of_small_pictures_takes_small_ones(lenet, files, tmp_path, fitted):
    for file in files:
        MNIST.save(MNIST.read(file).pixels[:, ::2, ::2], tmp_path / file.id)
    small = list(walk_files(tmp_path, MNIST.suffixes))
    own = calibrate(lenet, small, MNIST)
    assert (own.scale, fitted.scale) == (0.5, 1.0)
    for calibration, expected in ((own, False), (fitted, True)):
        screener = Screener(lenet, Judge(calibration, 0.05), MNIST)
        (record,) = screener.judge_files(small[:1])
        assert any(f.risk == "out_of_domain" for f in record.findings) == expected


def test_a_calibration_of_large_pictures_takes_those_of_the_models_size(screener, measured):
    large = replace(screener.judge, calibration=replace(screener.judge.calibration, scale=8.0))
    assert not any(f.risk == "out_of_domain" for f in large.judge(measured).findings)


# --- calibrations ---


def test_a_calibration_of_pictures_is_read_as_it_was(fitted, tmp_path, measured):
    fitted.save(tmp_path / "c")
    read = Calibration.load(tmp_path / "c", model_id=fitted.model_id)
    assert read.fingerprint == fitted.fingerprint
    assert (read.sources, read.seen, read.scale) == ("blots", fitted.seen, 1.0)
    assert len(read.seen) == 24
    assert read.tag == "image"
    distances = (one.detector.distance(measured.measurement) for one in (read, fitted))
    assert len(set(distances)) == 1
    with pytest.raises(StateError, match="was made for model"):
        Calibration.load(tmp_path / "c", model_id="0" * 64)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_calibrations_that_are_shipped_judge(name):
    """They hold rows without center and scale, as files once did."""
    shipped = load_pretrained(name)
    known = Calibration.load(shipped.card.calibration_path, model_id=shipped.model_id)
    detector = known.detector.estimator
    assert isinstance(detector, FittedDensity)
    # the limit that was fitted is that of the rows: they were read as they were written
    rows = detector.rows_ * detector.scale_ + detector.center_
    assert np.quantile(-detector.distance(rows), 0.05) == pytest.approx(detector.offset_)
    assert 1.0 < known.threshold(0.01) < 2.0
    shape = shipped.card.image_shape
    grey = Image(torch.full(shape, 0.5), "00", "00", shape[1:], "PNG/L")
    screener = Screener(shipped, Judge(known), ImageAdapter(*shape))
    assert screener.measurer.measure_item(grey).measurement.named in shipped.card.labels


def test_few_pictures_and_copies_calibrate_nothing(lenet, files):
    with pytest.raises(CalibrationError, match=r"12 usable images \(12 failed\)"):
        calibrate(lenet, [*files[:12], *files[:12]], MNIST)


def test_a_calibration_of_pictures_judges_no_recording(fitted):
    condition, heard = Condition(8000.0, 0, 0.0), Heard(1.0)
    facts = FileFacts(1.0, 16000, 1, "WAV", "00", "00", 0.0, (), condition, heard)
    measurement = Measurement(*[np.zeros(3)] * 3)
    with pytest.raises(InputError, match="made of images"):
        Judge(fitted, 0.05).judge(MeasuredFile("a", None, RETRY, facts, measurement))


def test_remedies_are_of_pictures():
    with pytest.raises(KeyError):
        Finding.of("lonely", "alone", Images(MNIST).words.remedies)


def test_a_link_that_leads_out_is_not_read(tmp_path, files):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(files[0].path)
    (link,) = walk_files(tmp_path / "in", MNIST.suffixes)
    with pytest.raises(ImageError, match="is a link to .*, outside of") as caught:
        MNIST.read(link)
    assert caught.value.code == "outside"
    (followed,) = walk_files(tmp_path / "in", MNIST.suffixes, follow_links=True)
    assert MNIST.read(followed).content_sha256 == MNIST.read(files[0]).content_sha256
