"""What is redone when the weights of a shipped model change."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nip_audio.errors import InputError
from studies.refit.__main__ import PRETRAINED, STEPS, chosen, do, is_done, read_steps


@pytest.fixture
def pretrained(tmp_path) -> Path:
    for model in ("one", "two"):
        folder = tmp_path / "pretrained" / model
        folder.mkdir(parents=True)
        (folder / "weights").write_text(model)
    return tmp_path / "pretrained"


def plan(tmp_path: Path, steps: dict) -> Path:
    path = tmp_path / "steps.yaml"
    path.write_text(yaml.safe_dump({"weights": ["weights"], "steps": steps}))
    return path


def test_a_step_is_due_until_it_is_done_and_again_when_what_it_needs_changes(tmp_path, pretrained):
    path = plan(
        tmp_path,
        {"fit": {"each": ["one"], "after": ["companion"], "run": "echo $MODEL $DATA >> $WORK/log"}},
    )
    stamps, log = tmp_path / "done", tmp_path / "log"
    places = {"DATA": "data", "WORK": str(tmp_path)}
    (step,) = read_steps(path, pretrained)
    assert step.name == "fit:one"
    assert not is_done(step, stamps, pretrained)
    do(step, stamps, pretrained, places)
    assert log.read_text() == "one data\n"
    assert is_done(step, stamps, pretrained)
    (pretrained / "two/weights").write_text("a model that it does not need")
    assert is_done(step, stamps, pretrained)
    for file in ("companion", "weights"):
        (pretrained / "one" / file).write_text("changed")
        assert not is_done(step, stamps, pretrained)
        do(step, stamps, pretrained, places)
    (changed,) = read_steps(plan(tmp_path, {"fit": {"each": ["one"], "run": "true"}}), pretrained)
    assert not is_done(changed, stamps, pretrained)


def test_a_step_that_fails_stays_due_and_ends_the_command(tmp_path, pretrained):
    path = plan(tmp_path, {"broken": {"run": "false\ntouch $WORK/reached"}})
    (step,) = read_steps(path, pretrained)
    with pytest.raises(InputError, match="step broken ended with 1"):
        do(step, tmp_path / "done", pretrained, {"WORK": str(tmp_path)})
    assert not (tmp_path / "reached").exists()
    assert not is_done(step, tmp_path / "done", pretrained)


def test_steps_are_chosen_by_name_with_or_without_their_model(tmp_path, pretrained):
    steps = read_steps(
        plan(tmp_path, {"fit": {"each": ["one", "two"], "run": "true"}, "page": {"run": "true"}}),
        pretrained,
    )
    names = [[step.name for step in chosen(steps, only)] for only in ([], ["fit"], ["fit:two"])]
    assert names == [["fit:one", "fit:two", "page"], ["fit:one", "fit:two"], ["fit:two"]]
    with pytest.raises(InputError, match="no step paint"):
        chosen(steps, ["fit", "paint"])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"each": ["one"]}, "step fit has no commands"),
        ({"each": ["three"], "run": "true"}, "step fit needs three, which is not shipped"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path, pretrained, step, said):
    with pytest.raises(InputError, match=said):
        read_steps(plan(tmp_path, {"fit": step}), pretrained)


def test_every_speaker_model_and_every_file_that_a_step_names_is_there():
    steps = read_steps(STEPS, PRETRAINED)
    speaker_models = {p.parent.name for p in PRETRAINED.glob("*-libri*/model_card.json")}
    assert {model for step in steps for model in step.models} == speaker_models
    root = STEPS.parents[2]
    words = {word for step in steps for word in step.run.split()}
    scripts = [
        w for w in words if w.startswith(("studies/", "recipes/")) and w.endswith((".py", ".yaml"))
    ]
    assert scripts
    missing = [w for w in scripts if "$" not in w and not (root / w).exists()]
    modules = [w.replace(".", "/") for w in words if w.startswith("studies.")]
    missing += [m for m in modules if not (root / f"{m}.py").exists()]
    assert not missing
