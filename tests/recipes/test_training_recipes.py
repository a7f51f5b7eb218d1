"""The recipes end to end on synthetic corpora: train, be interrupted, resume, publish, load."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import soundfile
import torch

from nip_audio import Batch, ReadSettings, load_pretrained
from nip_audio.audio.manifest import read_recordings
from nip_audio.models.identification import identify
from nip_audio.models.readme import measured_of, readme_of
from tests.processes import start_python

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = ["--batch_size=8", "--batches_per_epoch=2", "--augment_group=4", "--rir_count=2"]
NARROW = {
    "LibriSpeech/Xvector": (
        "xvector.yaml",
        ["--channels=[8, 8, 8, 8, 12]", "--embedding_dim=6", "--n_speakers=4", "--n_classes=20"],
    ),
    "LibriSpeech/ECAPA": (
        "ecapa.yaml",
        [
            "--channels=[8, 8, 12]",
            "--attention_channels=4",
            "--se_channels=4",
            "--embedding_dim=6",
            "--n_speakers=4",
            "--n_classes={classes}",
        ],
    ),
    "LibriSpeech/ResNet34": (
        "resnet34_attentive.yaml",
        ["--width=4", "--embedding_dim=6", "--n_speakers=4", "--n_classes={classes}"],
    ),
    "LibriSpeech/AudioNet": ("audionet.yaml", ["--n_speakers=4", "--n_classes={classes}"]),
    "VCTK/ResNet34": (
        "resnet34.yaml",
        [
            "--width=4",
            "--embedding_dim=32",
            "--n_speakers=4",
            "--n_classes={classes}",
            "--min_utterances=5",
        ],
    ),
    "VCTK/DeepSpeaker": (
        "deep_speaker.yaml",
        [
            "--channels=[4, 4]",
            "--embedding_dim=6",
            "--n_speakers=4",
            "--n_classes={classes}",
            "--min_utterances=5",
        ],
    ),
}


@pytest.fixture
def librispeech(tmp_path, voice) -> Path:
    for speaker in range(4):
        for take in range(5):
            name = f"{speaker + 10}-1-{take:04d}.flac"
            path = tmp_path / "corpus/train-clean-100" / str(speaker + 10) / "1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(speaker, take, 1.4), 16000)
    return tmp_path / "corpus"


@pytest.fixture
def vctk(tmp_path, voice) -> Path:
    for speaker in range(4):
        for take in range(5):
            name = f"p{speaker + 225}_{take:03d}_mic1.flac"
            path = tmp_path / "corpus/wav48_silence_trimmed" / f"p{speaker + 225}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(speaker, take, 4.2), 48000)
    return tmp_path / "corpus"


def run(script: Path, *arguments: object, expect: int = 0) -> str:
    with tempfile.NamedTemporaryFile() as file:
        log = Path(file.name)
        code = start_python(script, *arguments, log=log, folder=script.parent).wait()
        said = log.read_text()
    assert (code != 0) == expect, said[-2000:]
    return said


def train(recipe: str, corpus: Path, out: Path, *options: str, expect: int = 0) -> str:
    file = f"hparams/{NARROW[recipe][0]}"
    folders = [f"--data_folder={corpus}", f"--output_folder={out}"]
    return run(RECIPES / recipe / "train.py", file, *folders, *TINY, *options, expect=expect)


def publish_and_load(out: Path, target: Path, *, kind: str, labels: tuple[str, ...]):
    words = ("--command", "train.py", "--data", "synthetic", "--limits", "a test")
    target.mkdir(parents=True, exist_ok=True)
    (target / "purifier.safetensors").write_bytes(b"of other weights")
    run(RECIPES / "publish.py", out, target, *words)
    loaded = load_pretrained(target)
    assert not (target / "purifier.safetensors").exists()
    (target / "purifier.safetensors").write_bytes(b"of these weights")
    run(RECIPES / "publish.py", out, target, *words)
    (target / "purifier.safetensors").unlink()  # it was kept
    run(RECIPES / "publish.py", out, target, *words)
    assert loaded.card.labels == labels
    assert loaded.model.output_kind == kind
    assert not list(target.glob("*.ckpt"))
    assert (target / "README.md").read_text(encoding="utf-8") == readme_of(loaded.card)
    assert len(loaded.card.data["training"]["seen"]) == 12  # three of five takes of each speaker
    with torch.no_grad():
        scores = loaded.model.scores(Batch(torch.rand(2, 16000) - 0.5))
    assert scores.shape == (2, 4)
    assert scores.isfinite().all()
    return loaded


@pytest.mark.slow
def test_trains_resumes_publishes_and_loads(librispeech, tmp_path):
    recipe, out = "LibriSpeech/Xvector", tmp_path / "run"
    options = [*NARROW[recipe][1], "--averaged_checkpoints=2", "--precision=bf16"]
    options += ["--teacher=audionet-libri251", "--teacher_window_s=0.5", "--triplet_weight=1"]
    train(recipe, librispeech, out, *options, "--number_of_epochs=1")
    taught = (out / "save/teacher.safetensors").stat().st_mtime_ns
    log = train(recipe, librispeech, out, *options, "--number_of_epochs=2")
    assert (out / "save/teacher.safetensors").stat().st_mtime_ns == taught  # asked once
    assert len(list((out / "save").glob("CKPT*/distillation.ckpt"))) == 2
    assert "Going into epoch 2" in log
    assert "Going into epoch 1" not in log  # what was done is not done again
    assert (out / "train_log.txt").read_text().count("epoch:") == 2
    labels = ("10", "11", "12", "13")
    loaded = publish_and_load(out, tmp_path / "pretrained/tiny", kind="cosine", labels=labels)
    assert loaded.card.data["training"]["epochs"] == 2
    options = loaded.card.data["training"]["hyperparameters"]
    assert options["adversarial_attack"] is None
    assert options["teacher"] == "audionet-libri251"
    assert "adversarial_eps" not in options  # would read as if there had been an attack
    log = run(RECIPES / "publish.py", out, tmp_path / "wordless", expect=1)
    assert "a run needs --command, --data and --limits" in log


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(set(NARROW) - {"LibriSpeech/Xvector"}))
def test_trains_adversarially_publishes_and_loads(recipe, request, tmp_path):
    on_vctk = recipe.startswith("VCTK")
    corpus = request.getfixturevalue("vctk" if on_vctk else "librispeech")
    speeds = ["--speeds=[100, 90]"]
    options = [option.format(classes=8) for option in NARROW[recipe][1]]
    attack = ["--adversarial_attack=pgd", "--adversarial_steps=2", "--number_of_epochs=1"]
    train(recipe, corpus, tmp_path / "run", *options, *speeds, *attack)
    labels = ("p225", "p226", "p227", "p228") if on_vctk else ("10", "11", "12", "13")
    kind = "logits" if "AudioNet" in recipe else "cosine"
    loaded = publish_and_load(tmp_path / "run", tmp_path / "tiny", kind=kind, labels=labels)
    options = loaded.card.data["training"]["hyperparameters"]
    assert options["adversarial_attack"] == "pgd"
    assert not [key for key in options if key.startswith("defence_") and key != "defence_training"]
    assert str(tmp_path) not in (tmp_path / "tiny/model_card.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defence", "modules"),
    [("cas", ["5"]), ("sns", []), ("feature-denoising", ["0", "3", "5"])],
)
def test_trains_with_a_proactive_defence_publishes_and_loads(
    librispeech, tmp_path, defence, modules
):
    recipe, out = "LibriSpeech/AudioNet", tmp_path / "run"
    options = [option.format(classes=4) for option in NARROW[recipe][1]]
    attack = ["--adversarial_attack=pgd", "--adversarial_steps=2"]
    choice = [f"--defence_training={defence}", "--number_of_epochs=1"]
    train(recipe, librispeech, out, *options, *attack, *choice)
    labels = ("10", "11", "12", "13")
    loaded = publish_and_load(out, tmp_path / "tiny", kind="logits", labels=labels)
    assert list(loaded.model.network.defences) == modules
    options = loaded.card.data["training"]["hyperparameters"]
    assert (options["defence_training"], options["defence_share"]) == (defence, 0.1)
    for name in modules:  # what was trained is no longer as it was made
        block = loaded.model.network.defences[name]
        assert defence == "cas" or block.norm.weight.any()


@pytest.mark.slow
def test_a_defence_that_lacks_something_is_refused_before_the_training(librispeech, tmp_path):
    recipe, out = "LibriSpeech/AudioNet", tmp_path / "run"
    options = [option.format(classes=4) for option in NARROW[recipe][1]]
    log = train(recipe, librispeech, out, *options, "--defence_training=sns", expect=1)
    assert "sns got no adversarial crops" in log
    assert "Going into epoch" not in log


def test_results_are_added_to_a_card_with_their_counts(tmp_path):
    name = "resnet34-libri30"
    target = tmp_path / name
    shutil.copytree(RECIPES.parent / "pretrained" / name, target)
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    measured = {
        "crop_s": 3.0,
        "groups": {"all": {"crops": 40, "recordings": 20, "speakers": 4}},
        "models": [{"model": "other"}, {"model": name, "all": {"clean": interval}}],
    }
    (tmp_path / "results.json").write_text(json.dumps(measured))
    run(RECIPES / "publish.py", target, "--results", tmp_path / "results.json")
    card = load_pretrained(target).card
    assert card.data["metrics"]["crop_s"] == 3.0
    assert [(m.percent, m.items) for m in measured_of(card)] == [("50.0 % [25.0, 75.0]", 40)]
    assert (target / "README.md").read_text(encoding="utf-8") == readme_of(card)
    changed = json.loads((target / "model_card.json").read_text()) | {"limits": "for tests"}
    (target / "model_card.json").write_text(json.dumps(changed))
    run(RECIPES / "write_readmes.py", target)
    assert "- for tests\n" in (target / "README.md").read_text(encoding="utf-8")


def spans_of(corpus: Path, split: Path) -> int:
    """Deal each recording's first 60 % to train, then 20 % each; return how many there are."""
    files = sorted(corpus.rglob("*_mic1.flac"))
    with split.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "speaker", "role", "start_s", "end_s"))
        for path in files:
            length = soundfile.info(path).duration
            for role, start, end in (("train", 0, 0.6), ("calibrate", 0.6, 0.8), ("test", 0.8, 1)):
                name = path.relative_to(corpus).as_posix()
                writer.writerow((name, path.parent.name, role, start * length, end * length))
    return len(files)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "least"), [("VCTK-mini", 5), ("VCTK-16k", 3)])
def test_vctks_own_recordings_are_trained_on_and_their_speakers_identified(
    layout, least, vctk_root, tmp_path
):
    """At 48 kHz in VCTK 0.92's own folders, one sentence each; at 16 kHz, ten of four speakers.

    So short a training leaves errors, but far fewer than chance: one clip is right by it.
    """
    corpus, out = vctk_root / layout, tmp_path / "run"
    if layout == "VCTK-mini":
        count = spans_of(corpus, tmp_path / "split.csv")
        data = [f"--split_file={tmp_path / 'split.csv'}"]
    else:
        count, data = 4, ["--utterances=./*/*.flac"]
    size = [f"--n_speakers={count}", f"--n_classes={count}", "--speeds=[100]", "--rir_count=2"]
    steps = ["--number_of_epochs=2", "--batches_per_epoch=15", "--batch_size=16", "--lr=0.001"]
    folders = [f"--data_folder={corpus}", f"--output_folder={out}"]
    script, start = RECIPES / "VCTK/ResNet34/train.py", "--init_from=resnet34-libri30"
    run(script, "hparams/resnet34.yaml", *folders, *data, *size, *steps, start)
    target = tmp_path / "vctk"
    words = ("--command", "train.py", "--data", f"VCTK, {count} speakers", "--limits", "a test")
    run(RECIPES / "publish.py", out, target, *words)
    loaded = load_pretrained(target)
    assert "VCTK: CC BY 4.0" in (target / "README.md").read_text(encoding="utf-8")
    tested = read_recordings(out / "save/test.csv", data_root=corpus)
    assert {recording.speaker for recording in tested} == set(loaded.card.labels)
    assert len(loaded.card.labels) == len(tested) == count
    right = 0
    for recording in tested:
        audio = recording.read(ReadSettings())
        assert audio.content_sha256 not in loaded.card.seen
        (first,) = identify(loaded, audio.samples, top=1)
        right += first.speaker == recording.speaker
    assert right >= least


def test_says_what_to_pass_when_the_number_of_speakers_is_wrong(librispeech, tmp_path):
    log = train("LibriSpeech/Xvector", librispeech, tmp_path / "run", expect=1)
    assert "--n_speakers=4 --n_classes=20" in log
