"""Run attacks of Foolbox on a system under attack. Foolbox is imported when it is needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nip_audio.attacks.base import System
from nip_audio.errors import AttackError, MissingDependencyError


def foolbox() -> Any:
    """Return the package Foolbox.

    Raises:
        MissingDependencyError: If Foolbox is not installed.
    """
    try:
        import foolbox
    except ImportError as err:
        raise MissingDependencyError("this attack needs Foolbox", extra="attacks") from err
    return foolbox


def wrapped(system: System, module: nn.Module | None = None) -> Any:
    """Return the system, or a module in front of it, as a Foolbox model."""
    module = system if module is None else module
    bounds = (system.bounds.low, system.bounds.high)
    return foolbox().PyTorchModel(module.eval(), bounds=bounds, device=system.batch.x.device)


def criterion_of(system: System) -> Any:
    """Return the attacker's goal as a Foolbox criterion."""
    criteria = foolbox().criteria
    kind = criteria.TargetedMisclassification if system.targeted else criteria.Misclassification
    return kind(system.label)


def untargeted_criterion(system: System, name: str) -> tuple[Any, int]:
    """Return an untargeted Foolbox criterion, and the number of classes.

    Reaching one of two classes is the same as leaving the other.

    Raises:
        AttackError: If the goal is a target among more than two classes.
    """
    with torch.no_grad():
        classes = system(system.batch.x).shape[1]
    label = system.label
    if system.targeted:
        if classes != 2:
            raise AttackError(
                f"{name} cannot aim at a target among {classes} classes, expected an untargeted "
                "goal; use pgd, cw or fakebob for a target"
            )
        label = 1 - label
    return foolbox().criteria.Misclassification(label), classes
