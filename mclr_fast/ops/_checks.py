"""Argument checks that the public ops share; each fails with one line that shows the value seen."""

from torch import Tensor


def check_evaluations(
    pred: Tensor,
    x: Tensor,
    x_noisy: Tensor,
    sigma: Tensor | None,
    weight: Tensor,
    output: str,
    c_skip: Tensor | None,
    c_out: Tensor | None,
) -> None:
    """Shapes of a minibatch of evaluations, as `weighted_sq_error` documents them."""
    if pred.ndim != 5:
        raise ValueError(f"pred must be [N,R,C,H,W], not {list(pred.shape)}.")
    num_images, num_columns, *image = pred.shape
    shared, own = (num_images, *image), (num_images, num_columns, *image)
    for name, value in (("x", x), ("x_noisy", x_noisy)):
        if value.shape != shared and value.shape != own:
            raise ValueError(
                f"{name} must be {list(shared)} (shared by the row) or {list(own)} to go with pred, "
                f"not {list(value.shape)}."
            )
    rows = (("sigma", sigma), ("weight", weight), ("c_skip", c_skip), ("c_out", c_out))
    for name, value in rows:
        if value is not None and value.shape != (num_images,):
            raise ValueError(f"{name} must be [{num_images}], one a row, not {list(value.shape)}.")
    if output not in ("network", "denoised"):
        raise ValueError(f"output must be 'network' or 'denoised', not {output!r}.")
    _check_scalings(sigma, output, c_skip, c_out)


def _check_scalings(sigma: Tensor | None, output: str, c_skip: Tensor | None, c_out: Tensor | None) -> None:
    """sigma, or c_skip and c_out: what makes D of the network's output."""
    if (c_skip is None) != (c_out is None):
        given = "c_out" if c_skip is None else "c_skip"
        raise ValueError(f"give c_skip and c_out together: only {given} was given.")
    if c_skip is None:
        if sigma is None and output == "network":
            raise ValueError("give sigma, or c_skip and c_out: neither was given.")
    elif output == "denoised":
        raise ValueError("c_skip and c_out are for output='network': a denoised image needs no scalings.")
    elif sigma is not None:
        raise ValueError("give sigma, or c_skip and c_out, not both: sigma=None with the latter.")


def check_shared(a: Tensor, b: Tensor) -> None:
    """Rows and dtypes of two operands, one of which may hold one row for several of the other."""
    rows_a, rows_b = a.shape[0], b.shape[0]
    if rows_a != rows_b:
        few, many = sorted((rows_a, rows_b))
        if few == 0 or many % few:
            raise ValueError(f"a has {rows_a} rows and b {rows_b}: one must have a multiple of the other's.")
    if a.dtype != b.dtype:
        raise ValueError(f"a is {a.dtype} and b {b.dtype}: convert one of them.")


def check_tokens(x: Tensor, **vectors: Tensor) -> None:
    """Shapes of tokens [B,L,C], and of the vectors [B,C] that an image's tokens share."""
    if x.ndim != 3 or not x.shape[2]:
        raise ValueError(f"x must be [B,L,C] with C > 0, not {list(x.shape)}.")
    for name, value in vectors.items():
        if value.shape != x.shape[::2]:
            raise ValueError(f"{name} must be {list(x.shape[::2])}, one an image, not {list(value.shape)}.")
