"""Trial lists and folders, embedded, scored and warned of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import nip_audio
from nip_audio import Aim, WaveformAdapter
from nip_audio.audio.manifest import Recording, walk_audio
from nip_audio.errors import HashMismatchError, InputError, StateError
from nip_audio.models.enrolment import embed_audio, embed_clips
from nip_audio.models.log_ratios import LogRatios
from nip_audio.models.plda_training import fit_plda
from nip_audio.models.threshold import VerificationThreshold
from nip_audio.workflows import threshold as workflow
from nip_audio.workflows.threshold import fit_threshold
from nip_audio.workflows.trials import is_trial_list, pair_recordings, read_trials

RATE_HZ = 16000
ADAPTER = WaveformAdapter.at(RATE_HZ)


@pytest.fixture(scope="module")
def recordings(clean_folder) -> list[Recording]:
    return list(walk_audio(clean_folder))


@pytest.fixture(scope="module")
def fitted(pretrained, recordings):
    return fit_threshold(pretrained, pair_recordings(recordings), ADAPTER, rounds=200)


@pytest.fixture(scope="module")
def rows(pretrained, recordings) -> np.ndarray:
    return np.stack(
        [embed_audio(pretrained, r.read(ADAPTER.settings).samples).numpy() for r in recordings]
    ).astype(float)


# --- lists ---


@pytest.fixture
def lists(clean_folder, tmp_path):
    """Write a list beside the folder's speakers, and read it."""

    def write(text: str, name: str = "trials.txt", **settings):
        path = tmp_path / name
        path.write_text(text)
        return read_trials(path, data_root=settings.pop("data_root", clean_folder), **settings)

    return write


VOXCELEB = (
    "1 s0/take0.wav s0/take1.wav\n0 s0/take0.wav s1/take1.wav\n\n1 s1/take0.wav s1/take1.wav\n"
)
KALDI = "s0/take0.wav s0/take1.wav target\ns0/take0.wav s1/take1.wav nontarget\n"
TABLE = "label,enrol,test\n1,s0/take0.wav,s0/take1.wav\nnontarget,s0/take0.wav,s1/take1.wav\n"


@pytest.mark.parametrize(
    ("text", "name"), [(VOXCELEB, "veri_test.txt"), (KALDI, "trials"), (TABLE, "trials.csv")]
)
def test_every_form_names_the_same_trials(lists, text, name, tmp_path):
    plan = lists(text, name)
    assert is_trial_list(tmp_path / name)
    assert [r.id for r in plan.recordings[:3]] == ["s0/take0.wav", "s0/take1.wav", "s1/take1.wav"]
    assert plan.pairs[:2].tolist() == [[0, 1], [0, 2]]
    assert plan.speakers[:3] == ("s0", "s0", "s1")
    assert plan.speakers_from == "folders"
    assert all(Path(r.path).is_file() for r in plan.recordings)


def test_kaldi_names_its_files_and_speakers_beside_the_list(clean_folder, tmp_path):
    (tmp_path / "wav.scp").write_text(
        "".join(f"u{k} {clean_folder}/s{k // 2}/take{k % 2}.wav\n" for k in range(4))
    )
    (tmp_path / "utt2spk").write_text("".join(f"u{k} s{k // 2}\n" for k in range(4)))
    trials = tmp_path / "trials"
    trials.write_text("u0 u1 target\nu0 u2 nontarget\n")
    plan = read_trials(trials, data_root=clean_folder)
    assert (plan.speakers, plan.speakers_from) == (("s0", "s0", "s1"), "manifest")
    trials.write_text("u0 u1 target\nu0 u2 target\n")
    with pytest.raises(InputError, match=r"line 2: the trial says one speaker, but the manifest"):
        read_trials(trials, data_root=clean_folder)
    trials.write_text("u0 u9 target\n")
    with pytest.raises(InputError, match="line 1: 'u9' is none of the 4 recordings"):
        read_trials(trials, data_root=clean_folder)


def test_speechbrains_manifest_lacks_the_ending_of_its_trials(clean_folder, tmp_path, lists):
    known = [Recording("s0/take0", clean_folder / "s0/take0.wav", "a"),
             Recording("s1/take1", clean_folder / "s1/take1.wav", "b")]  # fmt: skip
    plan = lists("0 s0/take0.wav s1/take1.wav\n", recordings=known)
    assert plan.speakers == ("a", "b")


def test_target_trials_tell_the_speakers_where_nothing_else_does(lists):
    text = "1 s0/take0.wav s1/take0.wav\n1 s1/take0.wav s2/take0.wav\n0 s0/take0.wav s3/take0.wav\n"
    plan = lists(text)
    assert plan.speakers_from == "target trials"
    assert len(set(plan.speakers[:3])) == 1
    assert len(set(plan.speakers)) == 2
    with pytest.raises(InputError, match=r"line 4: the trial says two speakers, but target trials"):
        lists(text + "0 s0/take0.wav s2/take0.wav\n")


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ("", "a.txt", "has no trials, expected lines like"),
        ("1 a.wav\n", "a.txt", "line 1: got '1 a.wav', expected"),
        ("1 a.wav b.wav\na.wav b.wav target\n", "a.txt", "line 2: got"),
        ("2 a.wav b.wav\n", "a.txt", "line 1: got '2 a.wav b.wav', expected"),
        ("enrol,test,label\na.wav,b.wav,yes\n", "a.csv", "line 2: got 'a.wav', 'b.wav' and label"),
        ("1 ../../a.wav b.wav\n", "a.txt", "line 1: .* is outside"),
    ],
)
def test_a_wrong_list_is_one_error(lists, text, name, match):
    with pytest.raises(InputError, match=match):
        lists(text, name)


def test_folders_and_manifests_are_no_lists(clean_folder, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,speaker\na.wav,x\n")
    assert not is_trial_list(clean_folder)
    assert not is_trial_list(manifest)
    assert not is_trial_list(tmp_path / "none.txt")


def test_pairs_of_a_folder(recordings):
    plan = pair_recordings(recordings)
    assert len(plan.pairs) == 32 * 31 // 2
    enrolled = pair_recordings(recordings, enrol=3)
    assert enrolled.enrolled_from == 3
    assert len(enrolled.pairs) == 8 * 8  # one clip of each speaker is left, against every voice
    with pytest.raises(InputError, match="give no trial with 9 enrolled"):
        pair_recordings(recordings, enrol=9)
    with pytest.raises(InputError, match="has no speaker, expected one"):
        pair_recordings([replace(recordings[0], speaker=None)])


# --- scores ---


def test_scores_are_cosines_of_all_pairs(fitted, rows, recordings):
    one, other = np.triu_indices(len(rows), 1)
    assert fitted.trials.scores == pytest.approx((rows @ rows.T)[one, other], abs=1e-5)
    assert fitted.trials.same.sum() == 8 * 6
    assert fitted.threshold.value == fitted.point.threshold.value
    assert len(fitted.threshold.seen) == len(recordings)
    assert fitted.threshold.enrolled_from == 1


def test_a_voice_is_the_mean_of_its_recordings(pretrained, recordings, rows):
    found = fit_threshold(pretrained, pair_recordings(recordings, enrol=3), ADAPTER, rounds=100)
    voices = rows.reshape(8, 4, -1)[:, :3].mean(axis=1)
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    expected = voices @ rows.reshape(8, 4, -1)[:, 3].T
    assert found.trials.scores.reshape(8, 8) == pytest.approx(expected, abs=1e-5)


def test_plda_scores_pairs_of_a_list_and_its_threshold_asks_for_it(
    pretrained, recordings, rows, monkeypatch
):
    monkeypatch.setattr("nip_audio.workflows.threshold._VOICES", 5)
    names = [str(r.speaker) for r in recordings]
    plda = fit_plda(torch.from_numpy(rows), names, model_id=pretrained.model_id, lda_dim=3)
    found = fit_threshold(pretrained, pair_recordings(recordings), ADAPTER, plda=plda, rounds=100)
    one, other = np.triu_indices(len(rows), 1)
    scores = plda.score(torch.from_numpy(rows), torch.from_numpy(rows)).numpy()
    # float32 embeddings, and ratios of these tight voices are sums of terms as large as the largest
    bound = 1e-6 * np.abs(scores).max()
    assert found.trials.scores == pytest.approx(scores[other, one], abs=bound)
    assert found.threshold.kind == "llr"
    found.threshold.require_back_end(plda)
    with pytest.raises(InputError, match="made for scores of the PLDA .*, but the cosine scores"):
        found.threshold.require_back_end(None)


def test_clips_of_one_length_are_embedded_together(pretrained, voice):
    clips = [torch.from_numpy(voice(k, 0)[: RATE_HZ // (1 + k % 2)]) for k in range(4)]
    together = embed_clips(pretrained, clips)
    for clip, row in zip(clips, together, strict=True):
        assert row == pytest.approx(embed_audio(pretrained, clip), abs=1e-5)


def test_kept_embeddings_are_not_made_again(pretrained, recordings, tmp_path, monkeypatch):
    plan = pair_recordings(recordings[:16])
    first = fit_threshold(pretrained, plan, ADAPTER, cache=tmp_path / "c", rounds=100)
    monkeypatch.setattr("nip_audio.workflows.threshold.embed_clips", None)
    again = fit_threshold(pretrained, plan, ADAPTER, cache=tmp_path / "c", rounds=100)
    assert again.threshold.report == first.threshold.report


def test_unusable_files_are_left_out_with_their_trials(pretrained, recordings):
    broken = Recording("s0/none.wav", Path("none.wav"), "s0")
    found = fit_threshold(pretrained, pair_recordings([*recordings, broken]), ADAPTER, rounds=100)
    assert [failure.code for failure in found.failures] == ["missing"]
    assert len(found.trials.scores) == 32 * 31 // 2
    with pytest.raises(InputError, match="no recording could be embedded; the first error is"):
        fit_threshold(pretrained, pair_recordings([broken, broken]), ADAPTER)


# --- warnings ---


def codes(found) -> set[str]:
    return {warning.code for warning in found.warnings}


def test_few_speakers_trials_and_sessions_are_told(fitted, pretrained, recordings):
    assert codes(fitted) >= {"few_speakers", "few_errors", "one_session"}
    plan = pair_recordings(recordings)
    asked = fit_threshold(pretrained, plan, ADAPTER, aim=Aim(far=0.001), rounds=100)
    (text,) = (w.text for w in asked.warnings if w.code == "few_impostors")
    assert text.startswith("448 impostor trials are too few for a FAR of 0.001")
    assert "rule of three" in text
    thirty = fit_threshold(pretrained, plan, ADAPTER, aim=Aim(far=0.02), rounds=100)
    (text,) = (w.text for w in thirty.warnings if w.code == "few_impostors")
    assert "about 9 false acceptances" in text
    (text,) = (w.text for w in thirty.warnings if w.code == "few_pairs")
    assert text.startswith("the impostor trials are of 28 pairs of speakers, fewer than the 150")


def test_recordings_of_several_folders_are_several_sessions(pretrained, recordings, tmp_path):
    moved = []
    for place, recording in enumerate(recordings):
        path = tmp_path / str(recording.speaker) / f"day{place % 2}" / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(recording.path).read_bytes())
        moved.append(replace(recording, path=path, root=None))
    assert "one_session" not in codes(
        fit_threshold(pretrained, pair_recordings(moved), ADAPTER, rounds=100)
    )


def test_copies_and_a_voice_under_two_names_are_told(pretrained, clean_folder, recordings):
    copy = Recording("s0/copy.wav", clean_folder / "s0/take0.wav", "s0")
    alias = [Recording(f"x/{k}.wav", clean_folder / f"s1/take{k}.wav", "x") for k in (0, 1)]
    found = fit_threshold(
        pretrained, pair_recordings([*recordings, copy, *alias]), ADAPTER, rounds=100
    )
    texts = {warning.code: warning.text for warning in found.warnings}
    assert texts["same_recording"].startswith("3 of the trials compare a recording with itself")
    assert texts["two_names"].startswith("'s1' and 'x' sound like one speaker")


@pytest.mark.parametrize("confounded", [True, False])
def test_conditions_of_a_manifest(pretrained, clean_folder, tmp_path, confounded):
    manifest = tmp_path / "m.csv"
    lines = ["path,speaker,condition"]
    for speaker in range(8):
        for take in range(4):
            odd = (speaker if confounded else take) % 2
            lines.append(f"$data_root/s{speaker}/take{take}.wav,s{speaker},{'ab'[odd]}")
    manifest.write_text("\n".join(lines))
    found = nip_audio.fit_threshold(
        manifest, model=pretrained, data_root=str(clean_folder), rounds=100
    )
    assert ("shared_channel" in codes(found)) is confounded
    assert list(found.point.parts) == ["a", "a / b", "b"]
    across = found.point.parts["a / b"]
    assert (across["targets"], across["eer"] is None) == ((0, True) if confounded else (32, False))


# --- the file ---


def test_a_file_says_what_was_saved(fitted, tmp_path, pretrained):
    path = tmp_path / "my.threshold"
    fitted.threshold.save(path)
    loaded = VerificationThreshold.load(path, model_id=pretrained.model_id)
    assert loaded.to_json() == fitted.threshold.to_json()
    assert loaded.judge(0.7, prior=0.01) == fitted.threshold.judge(0.7, prior=0.01)
    assert np.array_equal(loaded.curve.far, fitted.point.curve.far)


def test_wrong_files_are_one_error_each(fitted, tmp_path, pretrained, plda):
    path = tmp_path / "my.threshold"
    fitted.threshold.save(path)
    with pytest.raises(StateError, match="was made for model .*, this model is other"):
        VerificationThreshold.load(path, model_id="other")
    with pytest.raises(StateError, match="was made for model .*, this model is other"):
        VerificationThreshold.of(fitted.threshold, model_id="other")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(HashMismatchError, match="was changed after it was written"):
        VerificationThreshold.load(path, model_id=pretrained.model_id)
    plda.save(tmp_path / "a.plda")
    with pytest.raises(StateError, match="has kind plda .*, expected kind threshold"):
        VerificationThreshold.load(tmp_path / "a.plda", model_id=plda.model_id)


# --- Python ---


def test_python_verifies_by_the_threshold(fitted, pretrained, clean_folder, enrolled):
    file = clean_folder / "s1/take0.wav"
    found = nip_audio.verify(
        file, enrolled, "s1", model=pretrained, threshold_file=fitted.threshold, prior=0.01
    )
    assert found.threshold == fitted.threshold.value
    ratio = fitted.threshold.ratios.of(np.array(found.score))
    assert found.calibrated_llr == pytest.approx(float(ratio))
    odds = np.exp(found.calibrated_llr) * 0.01 / 0.99
    assert found.probability == pytest.approx(odds / (1 + odds))
    with pytest.raises(InputError, match="a prior without threshold_file, expected both"):
        nip_audio.verify(file, enrolled, "s1", model=pretrained, threshold=0.5, prior=0.01)
    with pytest.raises(InputError, match="a threshold file and threshold, expected one"):
        nip_audio.verify(
            file, enrolled, "s1", model=pretrained, threshold=0.5, threshold_file=fitted.threshold
        )


@pytest.fixture(scope="module")
def enrolled(pretrained, clean_folder):
    return nip_audio.enroll(clean_folder, model=pretrained)


def test_a_calibration_at_a_threshold_of_the_cosine(fitted, calibration):
    assert calibration.at(fitted.threshold).verification_threshold == fitted.threshold.value
    assert calibration.at(fitted.threshold).fingerprint != calibration.fingerprint
    ratio = replace(fitted.threshold, kind="llr", back_end="a" * 64)
    with pytest.raises(InputError, match="made for scores of the PLDA aaaa"):
        calibration.at(ratio)


def test_a_file_says_when_two_speakers_are_one_voice(fitted, calibration, pretrained, tmp_path):
    assert fitted.threshold.same_voice is None  # eight speakers of four takes are too few
    told = replace(fitted.threshold, same_voice=LogRatios(20.0, -10.0))
    assert told.to_json()["same_voice_cosine"] == pytest.approx(0.5)
    assert fitted.threshold.to_json()["same_voice_cosine"] is None
    told.save(tmp_path / "my.threshold")
    read = VerificationThreshold.load(tmp_path / "my.threshold", model_id=pretrained.model_id)
    assert calibration.at(read).same_voice == told.same_voice
    assert calibration.at(fitted.threshold).same_voice is None
    known = replace(calibration, same_voice=LogRatios(5.0, -2.0))
    assert known.at(fitted.threshold).same_voice == known.same_voice
    assert known.at(read).same_voice == told.same_voice


def test_copies_count_for_no_voice(rows, recordings):
    plan = pair_recordings(recordings)
    contents = [r.id for r in recordings]
    assert workflow._same_voice(torch.from_numpy(rows), plan, contents) is None
    several = replace(plan, speakers=tuple(f"s{k // 2:02}" for k in range(32)))
    every = workflow._same_voice(torch.from_numpy(rows), several, contents)
    contents[31] = contents[0]
    fewer = workflow._same_voice(torch.from_numpy(rows), several, contents)
    contents[31] = None
    assert workflow._same_voice(torch.from_numpy(rows), several, [None, *contents[1:]]) == fewer
    assert every != fewer


def test_a_silent_file_cannot_be_used(pretrained, recordings, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE_HZ), RATE_HZ)
    plan = pair_recordings([*recordings, Recording("silent", silent, "s0")])
    found = fit_threshold(pretrained, plan, ADAPTER, rounds=100)
    assert [failure.code for failure in found.failures] == ["silent"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recordings": "r.csv"}, "got `recordings`, but .* is no trial list"),
        ({"enrol": 2}, "got `enrol` 2 and a trial list"),
    ],
)
def test_an_argument_that_does_not_go_with_the_trials_is_refused(tmp_path, given, said):
    path = tmp_path
    if "enrol" in given:
        path = tmp_path / "veri_test.txt"
        path.write_text("1 a/1.wav a/2.wav")
    with pytest.raises(InputError, match=said):
        nip_audio.fit_threshold(path, **given)
