"""The Triton kernels held to float64: natively where there is a GPU, else under Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, and then every kernel in the process is interpreted.
So without a GPU these files are left out here, and test_interpreter.py runs them in a process of its
own. `TRITON_INTERPRET=1 pytest tests/ops/triton_kernels` runs them directly.
"""

import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
OWN_PROCESS = {"test_interpreter.py", "test_recording.py"}
FILES = {path.name for path in Path(__file__).parent.glob("test_*.py")}

if INTERPRETED:
    collect_ignore = sorted(OWN_PROCESS)
elif not torch.cuda.is_available():
    collect_ignore = sorted(FILES - OWN_PROCESS)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def implementation():
    """The kernels are called by name here, so nothing is chosen."""
    torch.manual_seed(0)


@pytest.fixture
def device():
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def randn(device):
    """randn(*shape, dtype): normal numbers, the same on every device."""
    return lambda *shape, dtype=torch.float32: torch.randn(shape).to(device, dtype)


@pytest.fixture(params=DTYPES, ids=["float32", "bfloat16", "float16"])
def dtype(request):
    return request.param


@pytest.fixture(params=["contiguous", "channels_last", "strided"])
def layout(request):
    """Puts a 4-dim tensor into a memory format, or into every other place of a larger one."""

    def layout(x):
        if request.param != "strided":
            return x.contiguous(memory_format=getattr(torch, request.param, torch.contiguous_format))
        larger = x.new_full((*x.shape[:3], 2 * x.shape[3]), float("nan"))
        larger[..., ::2] = x
        return larger[..., ::2]

    return layout


def _near(found, eager, truth):
    """At most twice the same-dtype eager error, plus one unit in the last place of the largest result.

    The interpreter stores bfloat16 by cutting off the low bits where a GPU rounds. That costs at most one
    unit in the last place of the value, so it fits under the rule, which is therefore the same for both.
    """
    assert found.shape == truth.shape
    assert found.dtype == eager.dtype
    if not truth.numel():
        return
    ulp = torch.finfo(found.dtype).eps * 2 ** truth.abs().amax().log2().floor()
    limit = 2 * (eager.double() - truth).abs().amax() + ulp
    error = (found.double() - truth).abs().amax()
    assert bool(error <= limit), f"off by {error:.3g}, eager by {(eager.double() - truth).abs().amax():.3g}"


def _evaluate(formula, inputs, cotangents, num_grads):
    inputs = [x.detach().requires_grad_(i < num_grads) for i, x in enumerate(inputs)]
    values = formula(*inputs)
    values = values if isinstance(values, tuple) else (values,)
    if num_grads:
        grads = torch.autograd.grad(values, inputs[:num_grads], cotangents, materialize_grads=True)
        return [v.detach() for v in values] + list(grads)
    return list(values)


@pytest.fixture
def near():
    """near(found, eager, truth): the rule of `_near`."""
    return _near


@pytest.fixture
def hold():
    """hold(forward, backward, formula, *inputs): values and gradients are the formula's in float64.

    backward(cotangents, values, *inputs) returns the gradients of the first inputs, or is None. The
    formula must work in the inputs' dtypes (that is "eager") and in float64.
    """

    def hold(forward, backward, formula, *inputs):
        values = forward(*inputs)
        values = list(values) if isinstance(values, tuple) else [values]
        cotangents = [torch.randn(v.shape).to(v) for v in values]
        grads = () if backward is None else backward(cotangents, values, *inputs)
        grads = list(grads) if isinstance(grads, tuple) else [grads]
        eager = _evaluate(formula, inputs, cotangents, len(grads))
        exact = [c.double() for c in cotangents]
        truth = _evaluate(formula, [x.double() for x in inputs], exact, len(grads))
        for found, plain, true in zip(values + grads, eager, truth, strict=True):
            _near(found, plain, true)
        return values, grads

    return hold


def _energies(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip=None, c_out=None):
    """Eq. 22, with EDM's scalings or those given: in float64 for float64, else in float32."""
    wide = torch.promote_types(pred.dtype, torch.float32)
    pred, x, x_noisy = (v.to(wide) for v in (pred, x, x_noisy))
    x, x_noisy = (v if v.ndim == 5 else v[:, None] for v in (x, x_noisy))
    if output == "network":
        if sigma is not None:
            level = sigma.to(wide)
            total = level**2 + sigma_data**2
            c_skip, c_out = sigma_data**2 / total, level * sigma_data / total.sqrt()
        c_skip, c_out = (c.to(wide).view(-1, 1, 1, 1, 1) for c in (c_skip, c_out))
        pred = c_skip * x_noisy + c_out * pred
    return (pred - x).square().flatten(2).sum(2) * weight.to(wide)[:, None]


@pytest.fixture
def energies():
    """energies(pred, x, x_noisy, sigma, weight, sigma_data, output, c_skip, c_out): the formula."""
    return _energies


@pytest.fixture
def evaluations(randn):
    """evaluations(shape, dtype): pred, x, x_noisy, sigma, weight; x or x_noisy one per column if asked."""

    def evaluations(shape, dtype, x_columns=False, noisy_columns=False):
        alone = (shape[0], *shape[2:])
        x, x_noisy = (randn(*(shape if own else alone)) for own in (x_columns, noisy_columns))
        return randn(*shape, dtype=dtype), x, x_noisy, randn(shape[0]).exp(), randn(shape[0]).exp()

    return evaluations
