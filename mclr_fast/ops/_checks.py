"""Argument checks that the public ops share; each fails with one line that shows the value seen."""

from torch import Tensor


def check_evaluations(
    pred: Tensor, x: Tensor, x_noisy: Tensor, sigma: Tensor, weight: Tensor, output: str
) -> None:
    """Shapes of a minibatch of evaluations, as `weighted_sq_error` documents them."""
    if pred.ndim != 5:
        raise ValueError(f"pred must be [N,R,C,H,W], not {list(pred.shape)}.")
    num_images, num_columns, *image = pred.shape
    allowed = ([num_images, *image], [num_images, num_columns, *image])
    for name, value in (("x", x), ("x_noisy", x_noisy)):
        if list(value.shape) not in allowed:
            raise ValueError(
                f"{name} must be {allowed[0]} (shared by the row) or {allowed[1]} to go with pred, "
                f"not {list(value.shape)}."
            )
    for name, value in (("sigma", sigma), ("weight", weight)):
        if list(value.shape) != [num_images]:
            raise ValueError(f"{name} must be [{num_images}], one a row, not {list(value.shape)}.")
    if output not in ("network", "denoised"):
        raise ValueError(f"output must be 'network' or 'denoised', not {output!r}.")


def check_shared(a: Tensor, b: Tensor) -> None:
    """Rows and dtypes of two operands, one of which may hold one row for several of the other."""
    few, many = sorted((len(a), len(b)))
    if few != many and (few == 0 or many % few):
        raise ValueError(f"a has {len(a)} rows and b {len(b)}: one must have a multiple of the other's.")
    if a.dtype != b.dtype:
        raise ValueError(f"a is {a.dtype} and b {b.dtype}: convert one of them.")
