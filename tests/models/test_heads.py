from __future__ import annotations

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import nn

from nip_audio.core.model import CosineHead
from nip_audio.errors import InputError
from nip_audio.models.heads import head_of


def test_linear_layer_is_itself_a_head_of_logits():
    classifier = nn.Linear(4, 3)
    assert head_of(classifier) == (classifier, "logits")


def test_ecapa_classifier_becomes_the_cosines_it_returns():
    classifier = Classifier(input_size=4, out_neurons=3)
    embeddings = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 0.1, 0.0, 0.0]])
    head, output_kind = head_of(classifier)
    assert output_kind == "cosine"
    torch.testing.assert_close(head(embeddings), classifier(embeddings[:, None])[:, 0])


def test_head_of_an_ecapa_classifier_is_a_copy_without_parameters():
    classifier = Classifier(input_size=4, out_neurons=3)
    head, _ = head_of(classifier)
    before = head.references.clone()
    with torch.no_grad():
        classifier.weight.zero_()
    assert torch.equal(head.references, before)
    assert list(head.parameters()) == []


@pytest.mark.parametrize(
    ("classifier", "kind"),
    [
        (Classifier(input_size=4, lin_blocks=1, out_neurons=3), "Classifier"),
        (CosineHead(torch.eye(3)), "CosineHead"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "Sequential"),
    ],
)
def test_any_other_classifier_is_an_error(classifier, kind):
    with pytest.raises(InputError, match=f"is a {kind}, expected torch.nn.Linear or SpeechBrain"):
        head_of(classifier)
