from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from nip_audio import load_pretrained
from nip_audio.errors import AudioError, InputError, StateError
from nip_audio.speechbrain.cached_verification import EmbeddingCache, verify_batch
from nip_audio.speechbrain.encoder_classifier import as_encoder_classifier
from nip_audio.speechbrain.guarded import GuardedSpeakerRecognition
from tests.tolerance import assert_same_but_for_rounding, depth_of, rounding


@pytest.fixture(scope="module")
def theirs() -> SpeakerRecognition:
    return as_encoder_classifier(load_pretrained("xvector-libri251"))


@pytest.fixture
def trials(folder: Path) -> list[tuple[Path, Path]]:
    files = sorted(folder.rglob("*.wav"))
    return [(one, other) for one in files[:3] for other in reversed(files)]


@pytest.mark.parametrize("guarded", [False, True])
def test_scores_are_those_of_single_trials(theirs, calibration, trials, tmp_path, guarded):
    if guarded:
        verification = GuardedSpeakerRecognition.from_hparams(
            "xvector-libri251", calibration=calibration, fpr=0.05
        )
    else:
        verification = theirs
    name = None if guarded else "mine"
    cache = tmp_path / "cache"
    scores, same = verify_batch(verification, trials, cache=cache, threshold=0.5, model_id=name)
    single = [theirs.verify_files(str(a), str(b)) for a, b in trials]
    expected = torch.cat([score for score, _ in single])
    assert scores.shape == (27,)
    assert_same_but_for_rounding(scores, expected, depth=depth_of(theirs.mods), size=1.0)
    assert same.tolist() == (expected > 0.5).tolist()
    assert 0 < int(same.sum()) < 27


def test_each_content_is_embedded_once_and_for_all(theirs, trials, tmp_path, monkeypatch):
    copy = tmp_path / "copy.wav"
    copy.write_bytes(trials[0][0].read_bytes())
    trials.append((copy, trials[0][0]))
    seen = []
    real = theirs.encode_batch
    monkeypatch.setattr(theirs, "encode_batch", lambda *a: seen.append(1) or real(*a))
    told = []
    first, _ = verify_batch(
        theirs, trials, cache=tmp_path / "c", model_id="mine", progress=told.append
    )
    assert len(seen) == 9
    assert len(told) == 10
    assert float(first[-1]) == pytest.approx(1.0, abs=rounding())
    again, _ = verify_batch(theirs, trials, cache=tmp_path / "c", model_id="mine")
    assert len(seen) == 9
    assert torch.equal(again, first)


def test_changed_files_and_other_models_are_embedded_anew(theirs, trials, tmp_path, monkeypatch):
    cache = tmp_path / "c"
    before, _ = verify_batch(theirs, trials, cache=cache, model_id="mine")
    trials[0][0].write_bytes(trials[0][1].read_bytes())
    changed, _ = verify_batch(theirs, trials[:1], cache=cache, model_id="mine")
    assert float(before[0]) < 0.9
    assert float(changed) == pytest.approx(1.0, abs=rounding())
    monkeypatch.setattr(theirs, "encode_batch", lambda wav: torch.ones(1, 1, 4))
    other, _ = verify_batch(theirs, trials[:1], cache=cache, model_id="other")
    assert float(other) == pytest.approx(1.0, abs=rounding())


def test_a_damaged_embedding_is_refused(theirs, trials, tmp_path):
    verify_batch(theirs, trials, cache=tmp_path / "c", model_id="mine")
    for data in (b"", b"\x93NUMPY", "pickle", "nan"):
        for path in (tmp_path / "c").rglob("*.npy"):
            if data == "pickle":
                np.save(path, np.array([{}]), allow_pickle=True)
            elif data == "nan":
                np.save(path, np.full(3, np.nan))
            else:
                path.write_bytes(data)
        with pytest.raises(StateError, match=r"\.npy is damaged \(.*\); remove it"):
            verify_batch(theirs, trials, cache=tmp_path / "c", model_id="mine")


def test_bad_input_is_an_error(theirs, trials, tmp_path):
    with pytest.raises(InputError, match="a SpeakerRecognition has no identity"):
        verify_batch(theirs, trials, cache=tmp_path / "c")
    with pytest.raises(InputError, match="got no trials"):
        verify_batch(theirs, [], cache=tmp_path / "c", model_id="mine")
    with pytest.raises(AudioError, match=r"gone\.wav: it cannot be read") as caught:
        verify_batch(theirs, [("gone.wav", "gone.wav")], cache=tmp_path / "c", model_id="mine")
    assert caught.value.code == "missing"
    cache = EmbeddingCache(tmp_path / "c", "mine")
    with pytest.raises(StateError, match="not finite"):
        cache.get(trials[0][0], lambda path: torch.full((3,), torch.nan))
