from __future__ import annotations

import pytest
import torch
from torch import nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import CosineHead, InstrumentedModel
from nip_audio.errors import InputError

BOUNDS = Bounds(-1.0, 1.0)


def test_cosine_head_by_hand_whatever_the_norms():
    head = CosineHead(torch.tensor([[5.0, 0.0], [1.0, 1.0]]))
    expected = torch.tensor([[0.6, 1.4 / 2**0.5]])
    torch.testing.assert_close(head(torch.tensor([[3.0, 4.0]])), expected)


def test_cosine_head_copies_its_references():
    references = torch.eye(2)
    head = CosineHead(references)
    references.zero_()
    assert head.references.tolist() == torch.eye(2).tolist()


@pytest.mark.parametrize("references", [torch.zeros(3), torch.zeros(0, 3)])
def test_cosine_head_refuses_no_reference(references):
    with pytest.raises(InputError, match=r"expected \(classes ≥ 1, dimensions\)"):
        CosineHead(references)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_kind": "probs"}, "output kind is 'probs', expected"),
        ({"labels": ("a",)}, "got labels but no head"),
        ({"output_kind": "llr", "scale": 30.0}, "scale is 30 for llr, expected 1"),
    ],
)
def test_model_refuses_parts_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        InstrumentedModel(nn.Identity(), bounds=BOUNDS, **options)


def test_stages_agree(tiny_model):
    batch = Batch(torch.rand(2, 8000) - 0.5, torch.tensor([8000, 6000]))
    inner = tiny_model.to_input(batch)
    assert inner.x.shape == (2, 40, 51)
    assert inner.lengths.tolist() == [51, 38]
    embeddings = tiny_model.embed(batch)
    torch.testing.assert_close(embeddings, tiny_model.embed_input(inner))
    scores = tiny_model.scores(batch)
    torch.testing.assert_close(scores, tiny_model.head(embeddings))
    torch.testing.assert_close(tiny_model(batch), scores)
    torch.testing.assert_close(tiny_model.logits(scores), 10.0 * scores)
    assert tiny_model.predict(batch).tolist() == scores.argmax(1).tolist()


def test_input_without_lengths_stays_without(tiny_model):
    assert tiny_model.to_input(Batch(torch.rand(1, 8000))).lengths is None


def test_bare_embedding_model_embeds_and_refuses_to_score(embedding_model):
    batch = Batch(torch.rand(1, 8000))
    torch.testing.assert_close(embedding_model(batch), embedding_model.embed(batch))
    with pytest.raises(InputError, match="and only embeds; enrol speakers"):
        embedding_model.scores(batch)


def test_with_head_shares_the_network_and_the_mode(embedding_model):
    other = embedding_model.with_head(CosineHead(torch.eye(6)), labels=tuple("abcdef"))
    assert other.network is embedding_model.network
    assert not other.training
    assert other.scores(Batch(torch.rand(1, 8000))).shape == (1, 6)
    assert embedding_model.head is None


def test_only_cosines_are_scaled_behind_a_new_head(tiny_model):
    head = CosineHead(torch.eye(6))
    scales = [
        tiny_model.with_head(head).scale,
        tiny_model.with_head(head, scale=3.0).scale,
        tiny_model.with_head(head, output_kind="llr").scale,
        tiny_model.with_head(head, output_kind="logits").scale,
    ]
    assert scales == [10.0, 3.0, 1.0, 1.0]
