"""Guarded interfaces beside SpeechBrain's own: the same values, and verdicts apart."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from nip_audio import WaveformAdapter, load_pretrained
from nip_audio.audio.manifest import walk_audio
from nip_audio.errors import (
    AudioError,
    HashMismatchError,
    InputError,
    ModelCardError,
    StateError,
    UnsafeYamlError,
)
from nip_audio.models.sources.speechbrain_modules import instrument
from nip_audio.screening.calibrating import calibrate
from nip_audio.screening.measure import default_config
from nip_audio.speechbrain.guard import Guard
from nip_audio.speechbrain.guarded import GuardedEncoderClassifier, GuardedSpeakerRecognition
from nip_audio.speechbrain.guided_purifier import GuidedPurifier
from nip_audio.speechbrain.unpublished import unpublished
from nip_audio.speechbrain.waveforms import split_batch

MODEL = "xvector-libri251"


@pytest.fixture(scope="module")
def theirs():
    return SpeakerRecognition.from_hparams(source=str(load_pretrained(MODEL).card.directory))


@pytest.fixture
def guarded(calibration):
    return GuardedSpeakerRecognition.from_hparams(MODEL, calibration=calibration, fpr=0.05)


@pytest.fixture
def batch(voice):
    """A clean voice, a noisy one, and a shorter clean one, padded: (3, N), (3,)."""
    wavs = torch.zeros(3, 16000)
    wavs[0] = torch.from_numpy(voice(1, 11))
    noise = 0.01 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    wavs[1] = wavs[0] + noise
    wavs[2, :12000] = torch.from_numpy(voice(2, 11, 0.75))
    return wavs, torch.tensor([1.0, 1.0, 0.75])


def assert_same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        if isinstance(other, torch.Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other


def test_they_are_speechbrains(guarded, theirs):
    assert isinstance(guarded, SpeakerRecognition)
    assert issubclass(GuardedEncoderClassifier, EncoderClassifier)
    assert guarded.audio_normalizer.sample_rate == theirs.audio_normalizer.sample_rate


def test_batches_give_the_same_values_and_verdicts_apart(guarded, theirs, batch):
    wavs, lengths = batch
    assert_same(guarded.classify_batch(wavs, lengths), theirs.classify_batch(wavs, lengths))
    verdicts = guarded.verdicts
    assert [record.flagged for record in verdicts] == [False, True, False]
    assert [record.id for record in verdicts] == ["0", "1", "2"]
    assert torch.equal(guarded.encode_batch(wavs, lengths), theirs.encode_batch(wavs, lengths))
    assert guarded.verdicts == verdicts
    assert_same(guarded(wavs, lengths), theirs(wavs, lengths))
    *found, said = guarded.classify_batch(wavs, lengths, return_verdicts=True)
    assert_same(found, theirs.classify_batch(wavs, lengths))
    assert said == verdicts
    embeddings, said = guarded.encode_batch(wavs, lengths, return_verdicts=True)
    assert torch.equal(embeddings, theirs.encode_batch(wavs, lengths))
    assert said == verdicts


def test_verdicts_of_a_batch_are_those_of_its_items(guarded, batch):
    wavs, lengths = batch
    guarded.classify_batch(wavs, lengths)
    together = [record.distance for record in guarded.verdicts]
    alone = []
    for wav in split_batch(wavs, lengths):
        guarded.classify_batch(wav)
        alone.append(guarded.verdicts[0].distance)
    assert together == alone


def test_verification_of_batches(guarded, theirs, batch):
    wavs, lengths = batch
    score, same, verdicts = guarded.verify_batch(
        wavs, wavs.flip(0), lengths, lengths.flip(0), threshold=0.5, return_verdicts=True
    )
    expected = theirs.verify_batch(wavs, wavs.flip(0), lengths, lengths.flip(0), threshold=0.5)
    assert_same((score, same), expected)
    assert [record.flagged for record in verdicts] == [False, True, False, False, True, False]
    assert [record.id for record in verdicts] == list("012345")
    assert guarded.verdicts == verdicts


def test_files_are_judged_as_files(guarded, theirs, folder, screener):
    paths = [folder / "s1" / "take10.wav", folder / "lonely.flac"]
    assert_same(guarded.classify_file(paths[0]), theirs.classify_file(str(paths[0])))
    assert guarded.verdicts == (guarded.guard.judge_file(paths[0]),)
    *found, verdicts = guarded.verify_files(*paths, return_verdicts=True)
    assert_same(found, theirs.verify_files(*map(str, paths)))
    assert verdicts == tuple(guarded.guard.judge_file(path) for path in paths)
    assert [record.id for record in verdicts] == [str(path) for path in paths]
    assert torch.equal(guarded.load_audio(paths[1]), theirs.load_audio(str(paths[1])))


def test_flagged_input_is_purified_where_asked(calibration, theirs, batch):
    guarded = GuardedEncoderClassifier.from_hparams(
        MODEL, calibration=calibration, fpr=0.05, purify=True
    )
    wavs, lengths = batch
    before = wavs.clone()
    scores = guarded.classify_batch(wavs, lengths)[0]
    assert guarded.purified == (False, True, False)
    assert torch.equal(wavs, before)
    cleaned = wavs.clone()
    cleaned[1] = GuidedPurifier(MODEL)(wavs[1])
    assert torch.equal(scores, theirs.classify_batch(cleaned, lengths)[0])
    assert not torch.allclose(scores[1], theirs.classify_batch(wavs, lengths)[0][1], atol=1e-3)


def test_an_item_that_cannot_be_judged_is_an_error_record(guarded, theirs, batch):
    wavs, _ = batch
    wavs[2] = 0.0
    assert_same(guarded.classify_batch(wavs), theirs.classify_batch(wavs))
    assert guarded.verdicts[2].error["code"] == "silent"


def test_bad_input_is_an_error_and_the_next_call_is_sound(guarded, folder, batch, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match="not audio"):
        guarded.classify_file(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not audio"):
        guarded.verify_files(folder / "lonely.flac", tmp_path / "a.wav")
    with pytest.raises(AudioError, match="does not exist"):
        guarded.load_audio(tmp_path / "b.wav")
    with pytest.raises(InputError, match="NaN"):
        guarded.classify_batch(torch.full((1, 16000), torch.nan))
    with pytest.raises(InputError, match="for 3 items"):
        guarded.encode_batch(batch[0], torch.ones(2))
    guarded.classify_batch(*batch)
    assert len(guarded.verdicts) == 3


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("url", ["https://example.org/a.wav", "s3://bucket/a.wav"])
def test_audio_is_not_fetched_either(guarded, folder, url):
    for call in (guarded.load_audio, guarded.classify_file):
        with pytest.raises(AudioError, match="an address on the network") as caught:
            call(url)
        assert caught.value.code == "not_a_file"
    with pytest.raises(AudioError, match="an address on the network"):
        guarded.verify_files(folder / "lonely.flac", url)


@pytest.mark.usefixtures("no_network")
def test_loading_needs_no_network_and_fetches_nothing(calibration):
    assert GuardedEncoderClassifier.from_hparams(MODEL, calibration=calibration, fpr=0.05)
    with pytest.raises(ModelCardError, match="no model 'somebody/some-ecapa'"):
        GuardedEncoderClassifier.from_hparams("somebody/some-ecapa")  # not SpeechBrain's


def test_only_what_matches_its_card_is_loaded(calibration, tmp_path):
    folder = shutil.copytree(load_pretrained(MODEL).card.directory, tmp_path / "model")
    mark = tmp_path / "MARK"
    text = (folder / "hyperparams.yaml").read_text()
    (folder / "hyperparams.yaml").write_text(text + f"x: !apply:os.system ['touch {mark}']\n")
    with pytest.raises(HashMismatchError, match="hyperparams.yaml has SHA-256"):
        GuardedSpeakerRecognition.from_hparams(folder, calibration=calibration)
    card = (folder / "model_card.json").read_text()
    old, new = (sha256(t) for t in (text, (folder / "hyperparams.yaml").read_text()))
    (folder / "model_card.json").write_text(card.replace(old, new))
    with pytest.raises(UnsafeYamlError, match="!apply:os.system"):
        GuardedSpeakerRecognition.from_hparams(folder, calibration=calibration)
    assert not mark.exists()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_guard_purifier_and_modules_must_be_of_one_model(guarded, make_speechbrain, guard):
    with pytest.raises(StateError, match="the guard is for xvector-libri251, which embeds other"):
        GuardedEncoderClassifier.around(make_speechbrain(), guard=guard)
    with pytest.raises(StateError, match="the purifier is for model"):
        GuardedEncoderClassifier.around(
            guarded, guard=guard, purifier=GuidedPurifier("resnet34-libri30")
        )


def test_speechbrains_own_models_are_guarded(make_speechbrain, clean_folder, batch):
    """ECAPA, calibrated and guarded, without a directory of this toolkit's."""
    theirs = make_speechbrain("ecapa", interface=SpeakerRecognition)
    known = unpublished(instrument(theirs), name="my-ecapa", default_taps=["blocks.0", "fc"])
    calibration = calibrate(
        known, walk_audio(clean_folder), WaveformAdapter(), default_config(known)
    )
    guarded = GuardedSpeakerRecognition.around(
        theirs, guard=Guard(known, calibration, fpr=0.05, workers=1)
    )
    wavs, lengths = batch
    assert_same(guarded.classify_batch(wavs, lengths), theirs.classify_batch(wavs, lengths))
    assert_same(guarded.verify_batch(wavs[:1], wavs[2:]), theirs.verify_batch(wavs[:1], wavs[2:]))
    assert [record.distance is not None for record in guarded.verdicts] == [True, True]
