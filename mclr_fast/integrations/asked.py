"""What a loss asks of a denoiser and its minibatch: EDM2's, called as in NVIDIA's loop, or any other."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .frozen_reference import unwrapped

SIGMA_DATA = 0.5  # of networks that say none: EDM's and EDM2's
MAX_MAGNITUDE = 64.0  # of encoded images: pixels lie in [-1, 1], latents of EDM2's mostly in [-5, 5]


@dataclass(frozen=True)
class Classes:
    """The labels of a minibatch.

    Attributes: index, int64 [N]; num_classes, None where nobody says; one_hot: the dtype in which the net
    takes them one-hot, None: as indices.
    """

    index: Tensor
    num_classes: int | None
    one_hot: torch.dtype | None

    @classmethod
    def of(cls, net: nn.Module, labels: Tensor) -> Classes:
        """Class indices, integers [N], or one-hot [N,classes], of any dtype.

        A net that says its label_dim, as EDM2's do, takes them one-hot; any other as they are given.
        Errors    ValueError for anything else, and for labels that the net does not have.
        """
        known = getattr(unwrapped(net), "label_dim", None)
        if known == 0:
            raise ValueError(
                "this net has no classes (label_dim 0) to contrast: train one with them (--cond=1)."
            )
        is_index = labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool
        if labels.numel() == 0 or not (is_index or (labels.ndim == 2 and labels.shape[1] >= 2)):
            raise ValueError(
                "labels must be class indices [N], or one-hot [N,classes] of at least 2 classes, "
                f"not {labels.dtype} {list(labels.shape)}: train with class labels (--cond=1)."
            )
        if is_index:
            _check_range(labels, known)
            return cls(labels.long(), known, None if known is None else torch.float32)
        if known not in (None, labels.shape[1]):
            raise ValueError(
                f"labels are of {labels.shape[1]} classes; this net's classes are 0 to {known - 1}."
            )
        dtype = labels.dtype if known is None or labels.is_floating_point() else torch.float32
        return cls(_of_one_hot(labels), labels.shape[1], dtype)

    def for_net(self, index: Tensor) -> Tensor:
        """Classes int64 [M] as the net takes them."""
        if self.one_hot is None:
            return index
        return nn.functional.one_hot(index, self.num_classes).to(self.one_hot)


def _check_range(labels: Tensor, num_classes: int | None) -> None:
    low, high = labels.aminmax()  # SYNC: pairing waits for them anyway
    if low < 0 or (num_classes is not None and high >= num_classes):
        known = "begin at 0" if num_classes is None else f"are 0 to {num_classes - 1}"
        raise ValueError(f"labels lie in [{low}, {high}]; this net's classes {known}.")


def _of_one_hot(labels: Tensor) -> Tensor:
    highest, index = labels.float().max(dim=1)
    if not bool(((highest == 1) & (labels.float().sum(dim=1) == 1)).all()):  # SYNC: pairing waits anyway
        raise ValueError("labels must be one-hot: some row has not exactly one 1 and else zeros.")
    return index


def check_minibatch(images: Tensor, labels: Tensor) -> None:
    """Whether these are encoded images [N,C,H,W] with a label each. ValueError; a warning for [0, 1]."""
    if images.ndim != 4 or labels.ndim == 0 or len(images) != len(labels):
        raise ValueError(
            f"images are {list(images.shape)} and labels {list(labels.shape)}: give images [N,C,H,W] and a "
            "label for each."
        )
    mend = "give them as the net takes them; of pixels 0 to 255 that is images.float() / 127.5 - 1."
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: {mend}")
    if images.numel() == 0:
        return
    low, high = (float(end) for end in images.aminmax())  # SYNC: pairing waits for the labels anyway
    if max(-low, high) > MAX_MAGNITUDE:
        raise ValueError(f"images lie in [{low:g}, {high:g}]: {mend}")
    if low >= 0 and 0 < high <= 1:
        warnings.warn(
            f"images lie in [{low:g}, {high:g}]: if the net was trained on [-1, 1], as EDM2's are, give it "
            "images * 2 - 1.",
            stacklevel=3,
        )


@dataclass(frozen=True)
class Call:
    """The evaluations of a minibatch: x_noisy [M,C,H,W]; sigma [M]; labels of M, as the net takes them.

    A net whose forward has return_logvar is called as EDM2's loss calls it: sigma is [M,1,1,1], and it gives
    (D, logvar). Any other is called net(x_noisy, sigma, labels), with sigma [M], and gives D.
    """

    x_noisy: Tensor
    sigma: Tensor
    labels: Tensor

    def of(self, net: Callable[..., Tensor]) -> tuple[Tensor, Tensor | None]:
        """(D [M,C,H,W], logvar of M images, None of a net that has none); ValueError for another output."""
        if not _has_logvar(net):
            return self._checked(net(self.x_noisy, self.sigma, self.labels), net), None
        given = net(*self._as_edm2(), return_logvar=True)
        denoised, logvar = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        return self._checked(denoised, net), logvar

    def denoised(self, net: Callable[..., Tensor]) -> Tensor:
        """D alone, [M,C,H,W]."""
        arguments = self._as_edm2() if _has_logvar(net) else (self.x_noisy, self.sigma, self.labels)
        return self._checked(net(*arguments), net)

    def _as_edm2(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x_noisy, self.sigma.view(-1, 1, 1, 1), self.labels

    def _checked(self, denoised: Tensor, net: Callable[..., Tensor]) -> Tensor:
        shape = list(self.x_noisy.shape)
        is_tensor = isinstance(denoised, Tensor)
        if not is_tensor or list(denoised.shape) != shape:
            seen = f"a tensor {list(denoised.shape)}" if is_tensor else f"a {type(denoised).__name__}"
            raise ValueError(
                f"the net, a {type(unwrapped(net)).__name__}, gave {seen} for noisy images {shape}: it must "
                "give the denoised images, a tensor of their shape."
            )
        return denoised


def _has_logvar(net: Callable[..., Tensor]) -> bool:
    """Whether it takes return_logvar, or passes on whatever it is given, as wrappers do."""
    own = unwrapped(net)
    try:
        parameters = inspect.signature(own.forward if isinstance(own, nn.Module) else own).parameters
    except (TypeError, ValueError):  # a builtin, or a program that says nothing
        return False
    kinds = {parameter.kind for parameter in parameters.values()}
    passes_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    return "return_logvar" in parameters or passes_on
