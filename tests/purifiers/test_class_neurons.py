from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError, LayerNotFoundError, StateError
from nip_audio.purifiers.class_neurons import ClassNeurons
from nip_audio.purifiers.defending import defend


class Means(nn.Module):
    """Four neurons: the means of the input's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.rows(x).mean(dim=2)


@pytest.fixture
def model() -> InstrumentedModel:
    """Names the first row's class, the second's, or a third that is never named."""
    head = nn.Linear(4, 3, bias=False)
    head.weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -9.0, 0]])
    return InstrumentedModel(
        Means(), head=head, labels=("ann", "bob", "cyd"), bounds=Bounds(0.0, 1.0)
    ).eval()


def items(*rows: list[float]) -> Batch:
    return Batch(torch.tensor(rows)[:, :, None].expand(-1, -1, 3).clone())


BENIGN = (
    [0.9, 0.1, 0.0, 0.5],  # ann: 0, 3
    [0.7, 0.2, 0.1, 0.3],
    [0.1, 0.8, 0.6, 0.2],  # bob: 1, 2
)


@pytest.fixture
def selection(model) -> ClassNeurons:
    return ClassNeurons.fit(model, [items(*BENIGN)], layers=["rows"], share=0.5, seen=["a"])


def test_each_class_selects_its_most_active_neurons(selection):
    expected = [[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]]  # cyd was never named
    assert selection.selected["rows"].int().tolist() == expected
    assert selection.seen == {"a"}


def test_fitting_in_batches_of_any_size_is_the_same(model, selection):
    one_by_one = [items(row) for row in BENIGN]
    again = ClassNeurons.fit(model, one_by_one, layers=["rows"], share=0.5)
    assert torch.equal(again.selected["rows"], selection.selected["rows"])


def test_magnitude_counts_where_activations_have_signs(model):
    batch = items([0.9, 0.1, 0.0, -0.5])
    chosen = ClassNeurons.fit(model, [batch], layers=["rows"], share=0.5).selected["rows"]
    assert chosen[0].int().tolist() == [1, 0, 0, 1]


def test_neurons_that_the_named_class_has_not_selected_are_silent(model, selection):
    defended = defend(model, selection, generator=torch.Generator())
    got = defended.embed_input(items([0.8, 0.7, 0.6, 0.5], [0.3, 0.4, 0.2, 0.1]))
    torch.testing.assert_close(got, torch.tensor([[0.8, 0, 0, 0.5], [0, 0.4, 0.2, 0]]))


def test_is_read_as_it_was_written(selection, tmp_path):
    path = tmp_path / "my.neurons"
    selection.save(path, model_id="m")
    read = ClassNeurons.load(path, model_id="m")
    assert read.settings() == selection.settings()
    assert read.seen == selection.seen
    assert read.labels == ("ann", "bob", "cyd")
    assert torch.equal(read.selected["rows"], selection.selected["rows"])
    with pytest.raises(StateError, match="was made for model m"):
        ClassNeurons.load(path, model_id="other")


def test_settings_tell_selections_apart(model, selection):
    other = ClassNeurons.fit(model, [items([0.1, 0.2, 0.0, 0.9])], layers=["rows"], share=0.5)
    assert other.settings()["selected_sha256"] != selection.settings()["selected_sha256"]
    assert selection.name == "class neurons 50% rows"


def test_other_classes_are_refused(model, selection):
    other = model.with_head(CosineHead(torch.eye(4)), labels=tuple("wxyz"))
    with pytest.raises(InputError, match=r"has 4 classes, w, x, y …, .* for 3, ann, bob, cyd"):
        defend(other, selection, generator=torch.Generator())
    bare = InstrumentedModel(model.network, bounds=model.bounds)
    with pytest.raises(InputError, match="predicts no classes, expected a head with labels"):
        defend(bare, selection, generator=torch.Generator())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"share": 0.0}, "share is 0.0, expected 0.01 to 1"),
        ({"share": 1.5}, "share is 1.5"),
        ({"batches": []}, "got no batches or no layers"),
        ({"layers": []}, "got no batches or no layers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(model, options, match):
    arguments = {"batches": [items(*BENIGN)], "layers": ["rows"], **options}
    with pytest.raises(InputError, match=match):
        ClassNeurons.fit(model, **arguments)


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(LayerNotFoundError, match="did you mean rows"):
        ClassNeurons.fit(model, [items(*BENIGN)], layers=["row"])
