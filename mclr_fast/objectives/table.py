"""What every objective checks of its settings and of the tables it is given."""

from __future__ import annotations

import math

from torch import Tensor


class SettingError(ValueError):
    """A setting out of its range; `name` is the constructor's word for it, `fault` what it must be."""

    def __init__(self, owner: object, name: str, fault: str):
        super().__init__(f"{type(owner).__name__}: {name} {fault}")
        self.name, self.fault = name, fault


def check_setting(owner: object, name: str, allowed: str, holds: bool) -> None:
    """SettingError naming the setting, its value and the allowed range, unless it is finite and `holds`."""
    value = getattr(owner, name)
    if not (math.isfinite(value) and holds):
        raise SettingError(owner, name, f"must be {allowed}, not {value!r}.")


def check_columns(owner: object, num_columns: int, others: int = 1) -> None:
    """ValueError unless a row of R columns has a negative beside its `others` (the positive, ...)."""
    if num_columns <= others:
        raise ValueError(
            f"{type(owner).__name__} needs at least 1 negative a row; R = {num_columns} leaves none."
        )


def check_reference(owner: object, energy: Tensor, reference: Tensor | None) -> Tensor:
    """The reference's energies, detached; ValueError where they are missing or of another shape."""
    if reference is None:
        raise ValueError(
            f"{type(owner).__name__} compares with a frozen reference: pass reference_NR, its energies "
            f"on the same evaluations, {list(energy.shape)}."
        )
    if reference.shape != energy.shape:
        raise ValueError(
            f"{type(owner).__name__}: reference_NR is {list(reference.shape)}, but energy_NR is "
            f"{list(energy.shape)}: evaluate the reference on the same rows and columns."
        )
    return reference.detach()


def check_ratio(owner: object, ratio: Tensor | None, num_negatives: int | None = None) -> Tensor:
    """The ratios, detached; ValueError where they are missing or not [N, num_negatives]."""
    if ratio is None:
        raise ValueError(
            f"{type(owner).__name__} weighs its negatives: pass ratio_NK, p_t(x_t|c~) / p_t(x_t) of each."
        )
    if ratio.ndim != 2 or ratio.shape[1] < 1 or num_negatives not in (None, ratio.shape[1]):
        wanted = "K" if num_negatives is None else num_negatives
        raise ValueError(
            f"{type(owner).__name__}: ratio_NK must be [N, {wanted}], one a negative, "
            f"not {list(ratio.shape)}."
        )
    return ratio.detach()


def mean_energies(energy_NR: Tensor) -> dict[str, Tensor]:
    """For the log: the positive's energy and the mean of the negatives', [N] each, detached."""
    energy_NR = energy_NR.detach()
    return {"positive": energy_NR[:, 0], "negative": energy_NR[:, 1:].mean(dim=1)}
