from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nip_audio.audio import MODALITY
from nip_audio.audio.adapter import WaveformAdapter
from nip_audio.audio.io import read_audio
from nip_audio.core.adapter import Bounds
from nip_audio.errors import AudioError, InputError, OutputError
from nip_audio.purifiers.noise import GaussianNoise
from nip_audio.purifiers.quantization import Quantization
from nip_audio.screening.judge import Judge
from nip_audio.workflows import purify_files
from nip_audio.workflows.files import PlannedFile
from nip_audio.workflows.plot import plot_purification
from nip_audio.workflows.purify_files import FilePurifier
from nip_audio.workflows.recordings import purify_audio

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
WAVE, SPECTROGRAM = Bounds(-1.0, 1.0), Bounds(0.0, 1.0)


def plan_files(inputs: list[Path], out: Path, **options: bool) -> list[PlannedFile]:
    return purify_files.plan_files(inputs, out, MODALITY, **options)


@pytest.fixture
def worker(pretrained) -> FilePurifier:
    purifier = Quantization(bits=5, level="input", bounds=SPECTROGRAM)
    return FilePurifier(pretrained, purifier, WaveformAdapter())


@pytest.fixture
def source(write_sound, voice) -> Path:
    return write_sound("in/one.flac", voice(2, 3))


def written(planned: list[PlannedFile], root: Path) -> list[str]:
    return [file.written.relative_to(root).as_posix() for file in planned]


def test_the_written_file_is_what_is_judged(worker, source, tmp_path):
    (planned,) = plan_files([source], tmp_path / "out")
    done = worker.purify(planned)
    assert planned.written == tmp_path / "out/one.wav"
    assert soundfile.info(planned.written).subtype == "PCM_16"
    heard = read_audio(planned.written)
    assert torch.equal(heard.samples, done.result.samples)
    assert done.written_sha256 == heard.sha256
    value = json.loads(planned.sidecar.read_text())
    assert value == done.to_json()
    assert value["source_sha256"] == read_audio(source).sha256
    assert set(value) <= set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    assert sorted(p.name for p in planned.written.parent.iterdir()) == ["one.json", "one.wav"]


def test_memory_and_file_agree(worker, source, tmp_path):
    (planned,) = plan_files([source], tmp_path / "out")
    done = worker.purify(planned).result
    memory = purify_audio(worker.pretrained, worker.purifier, read_audio(source), seed=0)
    assert torch.equal(memory.samples, done.samples)
    assert memory.to_json() == done.to_json()


def test_order_and_company_change_nothing(pretrained, write_sound, voice, tmp_path):
    noise = GaussianNoise(snr_db=20.0, bounds=WAVE)
    worker = FilePurifier(pretrained, noise, WaveformAdapter(), seed=3)
    files = [write_sound(f"in/{i}.wav", voice(i, 0)) for i in range(2)]
    worker.purify_all(plan_files(files, tmp_path / "a"))
    worker.purify_all(plan_files(files[::-1], tmp_path / "b"))
    worker.purify_all(plan_files(files[1:], tmp_path / "c"))
    first = (tmp_path / "a/1.wav").read_bytes()
    assert first == (tmp_path / "b/1.wav").read_bytes() == (tmp_path / "c/1.wav").read_bytes()
    assert first != (tmp_path / "a/0.wav").read_bytes()


def test_bad_files_are_returned_apart_and_leave_nothing(worker, source, write_sound, tmp_path):
    bad = write_sound("in/bad.wav")
    bad.write_bytes(b"RIFF")
    seen = []
    planned = plan_files([bad, tmp_path / "none.wav", source], tmp_path / "out")
    done, failures = worker.purify_all(planned, progress=seen.append)
    assert [file.planned.source for file in done] == [source]
    assert [err.code for err in failures] == ["not_audio", "missing"]
    assert seen == planned
    assert sorted(os.listdir(tmp_path / "out")) == ["one.json", "one.wav"]


def test_a_file_alone_raises(worker, tmp_path):
    (planned,) = plan_files([tmp_path / "none.wav"], tmp_path / "out")
    with pytest.raises(AudioError, match="does not exist"):
        worker.purify(planned)
    assert not (tmp_path / "out").exists()


def test_folders_keep_their_sub_folders_and_files_lie_flat(write_sound, tmp_path):
    for name in ("in/ann/1.wav", "in/ann/2.mp3.flac", "in/bob/1.ogg", "in/notes.txt", "x/take.1"):
        write_sound(name, container="WAV")
    planned = plan_files([tmp_path / "in", tmp_path / "x/take.1"], tmp_path / "out")
    assert written(planned, tmp_path / "out") == [
        "ann/1.wav",
        "ann/2.mp3.wav",
        "bob/1.wav",
        "take.1.wav",
    ]


def test_what_an_earlier_run_wrote_into_the_folder_is_passed_over(worker, source, tmp_path):
    folder = source.parent
    first = plan_files([folder], folder / "clean")
    worker.purify_all(first)
    assert plan_files([folder], folder / "clean", force=True) == first


@pytest.mark.parametrize("names", [("a.wav", "a.flac"), ("p/a.wav", "q/a.wav"), ("a.wav", "a.wav")])
def test_two_inputs_of_one_name_are_refused(write_sound, tmp_path, names):
    files = [write_sound(name) for name in names]
    with pytest.raises(InputError, match=r"would both become .*out/a\.wav; rename one"):
        plan_files(files, tmp_path / "out")


@pytest.mark.parametrize("existing", ["one.wav", "one.json", "one.png"])
def test_nothing_is_overwritten_unless_forced(worker, source, tmp_path, existing):
    out, plot = tmp_path / "out", existing == "one.png"
    out.mkdir()
    (out / existing).write_text("mine")
    with pytest.raises(OutputError, match=rf"{existing} exists already; pass `force=True`"):
        plan_files([source], out, plot=plot)
    with pytest.raises(OutputError, match="exists already"):
        worker.purify(PlannedFile(source, out / "one.wav", plot))
    assert os.listdir(out) == [existing]
    (planned,) = plan_files([source], out, plot=plot, force=True)
    worker.purify(planned, force=True)
    assert (out / existing).read_bytes() != b"mine"


@pytest.mark.parametrize("force", [False, True])
def test_an_original_is_never_overwritten(write_sound, tmp_path, force):
    file = write_sound("in/a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "link"):
        for given in (file, file.parent):
            with pytest.raises(OutputError, match="is one of the recordings; choose another"):
                plan_files([given], out, force=force)


def test_a_place_that_cannot_be_written_to(worker, source, tmp_path):
    (tmp_path / "out").write_text("a file")
    (planned,) = plan_files([source], tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be created"):
        worker.purify(planned)


def test_no_recording_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no audio file in"):
        plan_files([tmp_path], tmp_path / "out")


def test_the_picture_is_a_png_and_names_are_data(worker, source, tmp_path):
    (planned,) = plan_files([source], tmp_path / "out", plot=True)
    done = worker.purify(PlannedFile(planned.source, planned.written)).result
    odd = replace(done, before=replace(done.before, label="$x_{\u8a9e}$"))
    plot_purification(worker.pretrained, odd, planned.plot_path)
    assert planned.plot_path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match="exists already"):
        plot_purification(worker.pretrained, odd, planned.plot_path)


@pytest.fixture
def gated(worker, calibration) -> FilePurifier:
    return replace(worker, judge=Judge(calibration, 0.05), only_flagged=True)


def test_what_the_detector_lets_through_is_not_touched(gated, write_sound, voice, tmp_path):
    source = write_sound("in/one.wav", voice(2, 3), subtype="PCM_16")
    (planned,) = plan_files([source], tmp_path / "out")
    done = gated.purify(planned)
    assert done.result.before.verdict == "clean"
    assert torch.equal(done.result.samples, read_audio(source).samples)
    assert done.result.snr_db is None
    assert done.result.rounds is None


def test_what_the_detector_flags_is_purified(gated, write_sound, voice, tmp_path):
    noisy = voice(2, 3) + 0.05 * np.random.default_rng(0).standard_normal(16000)
    source = write_sound("in/one.wav", noisy.astype(np.float32), subtype="PCM_16")
    (planned,) = plan_files([source], tmp_path / "out")
    done = gated.purify(planned)
    assert done.result.before.verdict != "clean"
    assert not torch.equal(done.result.samples, read_audio(source).samples)


def test_a_gate_needs_a_detector(worker):
    with pytest.raises(InputError, match="no detector to flag them"):
        replace(worker, only_flagged=True)
