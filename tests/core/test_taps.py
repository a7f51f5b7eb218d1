from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from nip_audio.core.taps import tap_layers
from nip_audio.errors import InputError, LayerNotFoundError


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(OrderedDict(first=nn.Linear(2, 3), relu=nn.ReLU(), second=nn.Linear(3, 1)))


def test_tap_gives_each_layers_output_with_its_graph(network):
    x = torch.ones(4, 2)
    with tap_layers(network, ["first", "relu"]) as tap:
        network(x)
    torch.testing.assert_close(tap["first"], network.first(x))
    torch.testing.assert_close(tap["relu"], network.first(x).relu())
    assert tap["first"].requires_grad


def test_tap_holds_the_latest_pass(network):
    with tap_layers(network, ["first"]) as tap:
        network(torch.zeros(1, 2))
        network(torch.ones(5, 2))
    assert tap["first"].shape == (5, 3)


def test_unknown_layer_lists_near_names_and_hooks_nothing(network, hook_count):
    with (
        pytest.raises(
            LayerNotFoundError, match=r"'secnd' does not exist in Sequential; did you mean second"
        ),
        tap_layers(network, ["first", "secnd"]),
    ):
        pytest.fail("the context must not open")
    assert hook_count(network) == 0


def test_name_like_no_other_lists_the_first_layers(network):
    with (
        pytest.raises(LayerNotFoundError, match="known: first, relu, second"),
        tap_layers(network, ["zzzzzzzz"]),
    ):
        pytest.fail("the context must not open")


def test_layer_that_did_not_run_is_an_error(network):
    with (
        tap_layers(network, ["first"]) as tap,
        pytest.raises(LayerNotFoundError, match="'first' has no output.*so far: none"),
    ):
        tap["first"]


def test_hooks_are_there_inside_and_gone_after_a_normal_exit(network, hook_count):
    with tap_layers(network, ["first", "relu", "first"]):
        assert hook_count(network) == 2
    assert hook_count(network) == 0


def test_hooks_are_gone_after_an_exception_in_the_forward_pass(network, hook_count):
    with pytest.raises(RuntimeError, match="shapes"), tap_layers(network, ["first", "second"]):
        network(torch.ones(1, 7))
    assert hook_count(network) == 0


def test_other_hooks_of_the_user_stay(network, hook_count):
    network.first.register_forward_hook(lambda module, args, output: None)
    with tap_layers(network, ["first"]):
        pass
    assert hook_count(network) == 1


def test_layer_that_returns_no_tensor_is_an_error_and_leaves_no_hook(hook_count):
    network = nn.Sequential(OrderedDict(pair=Pair()))
    with (
        pytest.raises(InputError, match="layer 'pair' returns tuple, expected one tensor"),
        tap_layers(network, ["pair"]),
    ):
        network(torch.ones(1))
    assert hook_count(network) == 0
