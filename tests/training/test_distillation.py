"""What the teacher is asked, and what the student is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from nip_audio.errors import InputError
from nip_audio.training.distillation import Distillation, Teacher


class Listener:
    """A teacher whose embedding of a window is the mean and the largest of its samples."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, ...]] = []

    def embed(self, batch) -> Tensor:
        self.heard.append(tuple(batch.x.shape))
        return torch.stack([batch.x.mean(dim=1), batch.x.amax(dim=1)], dim=1)


def ask(file, listener, recordings, *, model_id="a", window_s=0.4, step_s=0.2):
    card = SimpleNamespace(sample_rate_hz=10)
    pretrained = SimpleNamespace(model=listener, model_id=model_id, card=card)
    readers = [(key, lambda x=x: x) for key, x in recordings.items()]
    return Teacher.cached(file, pretrained, readers, window_s=window_s, step_s=step_s)


def test_a_recording_is_cut_into_windows_and_asked_once(tmp_path):
    listener, file = Listener(), tmp_path / "teacher.safetensors"
    recordings = {"long": torch.arange(1.0, 11.0), "short": torch.tensor([3.0, 4.0])}
    teacher = ask(file, listener, recordings)
    assert listener.heard == [(4, 4), (1, 4)]  # the short one is filled up with silence
    assert teacher.size == 2
    expected = torch.nn.functional.normalize(torch.tensor([[2.5, 4.0]]), dim=1)
    assert torch.allclose(teacher.windows["long"][:1], expected)
    again = ask(file, listener, recordings)
    assert len(listener.heard) == 2
    assert torch.equal(again.windows["long"], teacher.windows["long"])


@pytest.mark.parametrize("changed", [{"model_id": "b"}, {"window_s": 0.3}, {"step_s": 0.1}])
def test_another_teacher_or_other_windows_are_asked_anew(tmp_path, changed):
    listener, file = Listener(), tmp_path / "teacher.safetensors"
    recordings = {"one": torch.ones(8)}
    ask(file, listener, recordings)
    ask(file, listener, recordings, **changed)
    assert len(listener.heard) == 2


def test_other_recordings_are_asked_anew(tmp_path):
    listener, file = Listener(), tmp_path / "teacher.safetensors"
    ask(file, listener, {"one": torch.ones(8)})
    assert list(ask(file, listener, {"two": torch.ones(8)}).windows) == ["two"]


def test_an_embedding_that_is_not_finite_names_its_recording(tmp_path):
    with pytest.raises(InputError, match="embedding of broken is not finite"):
        ask(tmp_path / "t.safetensors", Listener(), {"broken": torch.full((8,), torch.nan)})


def test_the_target_of_a_crop_is_the_mean_of_the_windows_inside_it():
    windows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])  # at 0, .4, .8, 1.2, 1.6 s
    teacher = Teacher({"a": windows}, window_s=0.8, step_s=0.4)
    assert teacher.target("a", 0.0, 1.6).item() == 1.0  # 0, 1 and 2
    assert teacher.target("a", 0.3, 2.0).item() == 2.0  # 1, 2 and 3
    assert teacher.target("a", 0.0, 9.0).item() == 2.0  # all: a short recording is repeated
    assert teacher.target("a", 0.1, 0.6).item() == 2.0  # none lies inside, so all


def test_the_student_pays_for_the_angle_after_a_map_of_its_own():
    lesson = Distillation(2, 2)
    with torch.no_grad():
        lesson.map.weight.copy_(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
        lesson.map.bias.zero_()
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    teacher = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    assert lesson(student, teacher).item() == pytest.approx(1.0)  # 0, 1 and 2
    assert lesson(student[:2], teacher[:2]).item() == pytest.approx(0.5)
