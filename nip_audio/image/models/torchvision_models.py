"""Use torchvision's classifiers as embedding networks, optionally with a stem for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nip_audio.errors import InputError, MissingDependencyError
from nip_audio.image.models._checks import require_images

__all__ = ["TorchvisionNet"]


class TorchvisionNet(nn.Module):
    """A torchvision network without its last layer and, for small images, with a small stem.

    The ImageNet stems halve an image twice before the first block. With ``small_stem`` the first
    convolution has 3 × 3 filters and stride 1 and no max pooling follows, as is usual for CIFAR.

    Args:
        name: Name of torchvision's constructor: ``resnet34``, ``resnet101``, ``wide_resnet50_2``,
            ``vgg11_bn``, ``vgg19_bn``, ``densenet121``, ``squeezenet1_1``, ``mobilenet_v2``,
            ``googlenet`` or ``alexnet``.
        small_stem: Use the stem for 32 × 32 images; False keeps the ImageNet stem.

    Raises:
        InputError: If the name is unknown.
        MissingDependencyError: If torchvision is not installed.
    """

    in_channels = 3

    def __init__(self, name: str = "resnet34", *, small_stem: bool = True) -> None:
        """Build the network with random weights."""
        super().__init__()
        if name not in _NETWORKS:
            raise InputError(f"network is {name!r}, expected one of {', '.join(_NETWORKS)}")
        try:
            from torchvision import models  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as err:
            raise MissingDependencyError(
                f"network {name} needs torchvision", extra="images"
            ) from err
        options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
        net = getattr(models, name)(weights=None, **options)
        self.embedding_dim = _NETWORKS[name](net, small_stem)
        self.net = net
        self.pool = nn.Flatten()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed images (B, 3, H, W) in [0, 1]; returns (B, D). ``lengths`` is ignored."""
        require_images(x, self.in_channels)
        pooled: Tensor = self.pool(self.net(4 * (x - 0.5)))
        return pooled


def _small(conv: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)


def _resnet(net: Any, small: bool) -> int:
    width = int(net.fc.in_features)
    net.fc = nn.Identity()
    if small:
        net.conv1, net.maxpool = _small(net.conv1), nn.Identity()
    return width


def _vgg(net: Any, small: bool) -> int:
    # the dense layers expect 7 × 7 maps; a 32 × 32 image leaves 1 × 1
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
    return 512


def _densenet(net: Any, small: bool) -> int:
    width = int(net.classifier.in_features)
    net.classifier = nn.Identity()
    if small:
        net.features.conv0, net.features.pool0 = _small(net.features.conv0), nn.Identity()
    return width


def _squeezenet(net: Any, small: bool) -> int:
    net.classifier = nn.AdaptiveAvgPool2d(1)
    if small:
        net.features[0], net.features[2] = _small(net.features[0]), nn.Identity()
    return 512


def _mobilenet(net: Any, small: bool) -> int:
    width = int(net.classifier[1].in_features)
    net.classifier = nn.Identity()
    if small:
        net.features[0][0] = _small(net.features[0][0])
    return width


def _googlenet(net: Any, small: bool) -> int:
    width = int(net.fc.in_features)
    net.fc = nn.Identity()
    if small:
        net.conv1.conv, net.maxpool1 = _small(net.conv1.conv), nn.Identity()
    return width


def _alexnet(net: Any, small: bool) -> int:
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
    if small:
        net.features[0] = _small(net.features[0])
    return 256


_NETWORKS: dict[str, Callable[[Any, bool], int]] = {
    "resnet34": _resnet,
    "resnet101": _resnet,
    "wide_resnet50_2": _resnet,
    "vgg11_bn": _vgg,
    "vgg19_bn": _vgg,
    "densenet121": _densenet,
    "squeezenet1_1": _squeezenet,
    "mobilenet_v2": _mobilenet,
    "googlenet": _googlenet,
    "alexnet": _alexnet,
}
"""For each network, a function that removes the last layer and returns the embedding's size."""
