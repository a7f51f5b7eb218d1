"""FGSM and PGD at the waveform or image level, by Foolbox."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nip_audio.attacks.objectives import Objective
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import AttackError, MissingDependencyError

__all__ = ["ATTACKS", "AttackResult", "GradientAttack", "make_attack"]

AttackName = Literal["fgsm", "pgd"]
ATTACKS: tuple[str, ...] = ("fgsm", "pgd")

LARGEST_SENSIBLE_EPS = 0.5
"""Above half the waveform's amplitude nobody hears the speaker: such an ε is a wrong unit."""

_SUREST = 30.0  # gap between the best two logits whose softmax float64 still resolves well


@dataclass(frozen=True)
class AttackResult:
    """Adversarial examples and what they cost.

    Attributes:
        batch: The examples; padding is zero, ids are kept.
        succeeded: (B,) bool, by the system's own decision on these tensors.
        linf: (B,) largest change.
        l2: (B,) Euclidean norm of the change.
        snr_db: (B,) signal to perturbation ratio over the valid samples.
        gradients: Backward passes an item.
        seconds: Wall-clock time of the batch.
    """

    batch: Batch
    succeeded: Tensor
    linf: Tensor
    l2: Tensor
    snr_db: Tensor
    gradients: int
    seconds: float


@dataclass(frozen=True)
class GradientAttack:
    """L∞ gradient attack, FGSM or PGD.

    Settings default to those of SpeakerGuard: step ε/5, and PGD starts at a random point.

    Attributes:
        name: ``fgsm`` (one step of ε from the input) or ``pgd``.
        eps: Largest change of a sample, in units of the waveform (full scale is 1).
        steps: Steps of PGD.
        step_share: Step of PGD as a share of ε.

    Raises:
        AttackError: If a setting makes no sense.
    """

    name: AttackName
    eps: float
    steps: int = 10
    step_share: float = 0.2

    def __post_init__(self) -> None:
        """Check."""
        if self.name not in ATTACKS:
            near = difflib.get_close_matches(str(self.name), ATTACKS, n=2) or ATTACKS
            raise AttackError(f"no attack {self.name!r}; near: {', '.join(near)}")
        if not 0 < self.eps <= LARGEST_SENSIBLE_EPS:
            raise AttackError(
                f"eps is {self.eps}, expected more than 0 and at most {LARGEST_SENSIBLE_EPS} in "
                "units of the input (a waveform's full scale is 1; 8/255 is 0.0314, 0.002 is "
                "usual)"
            )
        if self.steps < 1 or not self.step_share > 0:
            raise AttackError(
                f"steps is {self.steps} and step_share {self.step_share}, expected ≥ 1 and > 0"
            )

    def to_json(self) -> dict[str, Any]:
        """Return name and settings; FGSM has no steps to speak of."""
        settings: dict[str, Any] = {"name": self.name, "eps": self.eps}
        if self.name != "fgsm":
            settings |= {"steps": self.steps, "step_share": self.step_share}
        return settings

    def __call__(
        self, objective: Objective, batch: Batch, *, generator: torch.Generator
    ) -> AttackResult:
        """Attack every item of a batch.

        Args:
            objective: System and goal; its weights, their gradients and its mode are left as found.
            batch: Raw input within the model's bounds; padding stays zero.
            generator: Source of PGD's random start. The global generators are left as found.

        Raises:
            AttackError: If the system gives no gradient, or the result breaks ε or the bounds.
            MissingDependencyError: If Foolbox is not installed.
        """
        foolbox = _foolbox()
        bounds: Bounds = objective.model.bounds  # type: ignore[union-attr, assignment]
        clean = batch.masked().detach()
        started = time.perf_counter()
        with torch.enable_grad(), _borrowed(objective, generator):
            _require_gradient(objective, batch)
            wrapped = foolbox.PyTorchModel(
                _MaskedLogits(objective, batch).eval(),
                bounds=(bounds.low, bounds.high),
                device=clean.device,
            )
            criteria = foolbox.criteria
            criterion = (
                criteria.TargetedMisclassification(objective.label)
                if objective.targeted
                else criteria.Misclassification(objective.label)
            )
            x = self._library_attack(foolbox).run(wrapped, clean, criterion, epsilon=self.eps)
            adversarial = batch.with_x(batch.with_x(x.detach()).masked())
            self._keep_promise(adversarial.x, clean, bounds)
            # judged in evaluation mode too: a forward pass in training mode moves batch statistics
            succeeded = objective.succeeded(adversarial)
        delta = (adversarial.x - clean).flatten(1)
        l2 = delta.norm(dim=1)
        return AttackResult(
            batch=adversarial,
            succeeded=succeeded,
            linf=delta.abs().amax(dim=1),
            l2=l2,
            snr_db=20 * torch.log10(clean.flatten(1).norm(dim=1) / l2.clamp_min(1e-12)),
            gradients=1 if self.name == "fgsm" else self.steps,
            seconds=time.perf_counter() - started,
        )

    def _library_attack(self, foolbox: Any) -> Any:
        # One step of size ε from the input is FGSM, targeted or not; Foolbox's own FGSM class
        # refuses targets.
        kind = foolbox.attacks.LinfProjectedGradientDescentAttack
        if self.name == "fgsm":
            return kind(rel_stepsize=1.0, steps=1, random_start=False)
        return kind(rel_stepsize=self.step_share, steps=self.steps, random_start=True)

    def _keep_promise(self, x: Tensor, clean: Tensor, bounds: Bounds) -> None:
        worst = float((x - clean).abs().max())
        if not worst <= self.eps * (1 + 1e-4) + 1e-7:  # NaN is a breach too
            raise AttackError(
                f"{self.name} changed a sample by {worst:.3g}, more than eps = {self.eps}"
            )
        if float(x.min()) < bounds.low or float(x.max()) > bounds.high:
            raise AttackError(f"{self.name} left the bounds [{bounds.low}, {bounds.high}]")


def make_attack(name: str, *, eps: float, steps: int = 10) -> GradientAttack:
    """Return an attack by name.

    Raises:
        AttackError: For an unknown name, listing near ones, or a senseless setting.
    """
    return GradientAttack(name, eps=eps, steps=steps)  # type: ignore[arg-type]


class _MaskedLogits(nn.Module):
    """The objective as a plain function of the padded tensor, blind to what lies in the padding.

    Where a system is so sure of its answer that the softmax is flat to machine precision, as PLDA's
    log-likelihood ratios are, its logits are scaled down: the decision is the same, and there is a
    gradient to follow (Carlini & Wagner 2016 on defensive distillation).
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        super().__init__()
        self.objective = objective
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch.with_x(x)
        logits = self.objective.logits(batch.with_x(batch.masked())).double()
        if logits.shape[1] < 2:
            return logits
        best = logits.detach().topk(2, dim=1).values
        return logits / ((best[:, :1] - best[:, 1:]) / _SUREST).clamp_min(1.0)


def _foolbox() -> Any:
    try:
        import foolbox
    except ImportError as err:
        raise MissingDependencyError(
            "attacks need Foolbox; install it with: pip install 'nip-audio[attacks]'"
        ) from err
    return foolbox


def _require_gradient(objective: Objective, batch: Batch) -> None:
    x = batch.masked().detach().requires_grad_(True)  # without padding, masked() is batch.x
    with torch.enable_grad():
        logits = objective.logits(batch.with_x(x))
        gradient = (
            torch.autograd.grad(logits[:, 0].sum(), x, allow_unused=True)[0]
            if logits.requires_grad
            else None
        )
    if gradient is None or not bool(gradient.abs().sum() > 0):
        raise AttackError(
            "the system gives no gradient at this input, which a white-box attack needs; attack a "
            "differentiable model, or use a black-box attack"
        )


@contextmanager
def _borrowed(objective: Objective, generator: torch.Generator) -> Iterator[None]:
    """Freeze weights and seed the global generator, which Foolbox uses; restore both."""
    trainable = [p for p in objective.parameters() if p.requires_grad]
    modes = {module: module.training for module in objective.modules()}
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            objective.eval()
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, mode in modes.items():
                module.training = mode
