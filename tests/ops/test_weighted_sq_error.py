"""The op sums in float32 whatever pred's dtype, so torch's gradcheck cannot be applied: its gradients
are compared with those of an independent formula in float64."""

import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import weighted_sq_error

SIGMA_DATA = 0.6


def formula(pred, x, x_noisy, sigma, weight, output, scalings=None):
    """Evaluation by evaluation; scalings: (c_skip, c_out) in sigma's place."""
    rows = []
    for i, row in enumerate(pred):
        energies = []
        for r, denoised in enumerate(row):
            clean, noisy = (v[i] if v.ndim == 4 else v[i, r] for v in (x, x_noisy))
            if output == "network":
                if scalings is None:
                    variance = sigma[i] ** 2 + SIGMA_DATA**2
                    c_skip = SIGMA_DATA**2 / variance
                    c_out = sigma[i] * SIGMA_DATA / variance**0.5
                else:
                    c_skip, c_out = (values[i] for values in scalings)
                denoised = c_skip * noisy + c_out * denoised
            energies.append(weight[i] * ((denoised - clean) ** 2).sum())
        rows.append(torch.stack(energies))
    return torch.stack(rows) if rows else pred.new_zeros(pred.shape[:2]) * pred.sum()


def inputs(shape, per_column, layout=lambda x: x):
    num_images, num_columns, *image = shape
    pred = layout(torch.randn(num_images * num_columns, *image)).view(shape)
    lead = (num_images, num_columns) if per_column else (num_images,)
    x, x_noisy = torch.randn(2, *lead, *image)
    sigma, weight = torch.rand(2, num_images) + 0.1
    return pred, x, x_noisy, sigma, weight


SHAPES = [
    (0, 4, 1, 2, 2),
    (2, 3, 1, 0, 2),
    (1, 1, 1, 1, 1),
    (3, 2, 3, 5, 7),
    (2, 5, 1, 4, 4),
    (1, 3, 17, 3, 3),
    (2, 2, 8, 40, 20),
    (1, 2, 3, 49, 61),  # more than a chunk of the kernel
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("output", ["network", "denoised"])
def test_formula(assert_same, layout, shape, per_column, output):
    pred, *rest = inputs(shape, per_column, layout)
    assert_same(
        lambda p: weighted_sq_error(p, *rest, sigma_data=SIGMA_DATA, output=output),
        lambda p: formula(p, *(v.double() for v in rest), output),
        pred,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scalings_of_another_denoiser(assert_same, layout, shape, per_column, dtype):
    """As of v-prediction: c_out may be negative."""
    pred, x, x_noisy, _, weight = inputs(shape, per_column, layout)
    scalings = torch.randn(2, shape[0])
    names = dict(zip(("c_skip", "c_out"), scalings, strict=True))
    assert_same(
        lambda p: weighted_sq_error(p, x, x_noisy, None, weight, **names),
        lambda p: formula(
            p, x.double(), x_noisy.double(), None, weight.double(), "network", scalings.double()
        ),
        pred.to(dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_scalings_of_any_dtype_and_format(dtype):
    pred, x, x_noisy, _, weight = inputs((3, 2, 2, 4, 4), False)
    scalings = torch.randn(3, 4).to(dtype)[:, 1:3].unbind(1)
    found = weighted_sq_error(pred, x, x_noisy, None, weight, c_skip=scalings[0], c_out=scalings[1])
    operands = (v.double() for v in (pred, x, x_noisy))
    expected = formula(*operands, None, weight.double(), "network", [c.double() for c in scalings])
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_a_denoised_image_needs_no_sigma():
    pred, x, x_noisy, sigma, weight = inputs((2, 3, 3, 5, 7), False)
    found = weighted_sq_error(pred, x, x_noisy, None, weight, output="denoised")
    assert torch.equal(found, weighted_sq_error(pred, x, x_noisy, sigma, weight, output="denoised"))


@pytest.mark.parametrize("output", ["network", "denoised"])
def test_half_precision_is_summed_in_float32(output):
    pred, *rest = inputs((2, 3, 3, 16, 16), False)
    pred = pred.bfloat16()
    found = weighted_sq_error(pred, *rest, sigma_data=SIGMA_DATA, output=output)
    assert found.dtype == torch.float32
    expected = formula(pred.double(), *(v.double() for v in rest), output)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("output", ["network", "denoised"])
def test_any_format_and_one_operand_per_column(layout, output):
    pred, x, _, sigma, weight = inputs((2, 3, 4, 5, 7), False)
    x_noisy = torch.randn(2, 3, 4, 5, 7)
    for clean, noisy in ((layout(x), x_noisy), (x_noisy, layout(x))):
        rest = clean, noisy, sigma, weight
        for values in (
            pred.permute(1, 0, 2, 4, 3).contiguous().permute(1, 0, 2, 4, 3),
            pred.expand(2, -1, -1, -1, -1),
        ):
            found = weighted_sq_error(values, *rest, sigma_data=SIGMA_DATA, output=output)
            expected = formula(values.double(), *(v.double() for v in rest), output)
            torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_gradient_keeps_the_format(implementation, layout):
    pred, *rest = inputs((2, 3, 4, 5, 7), False, layout)
    (grad,) = torch.autograd.grad(weighted_sq_error(pred.requires_grad_(), *rest).sum(), pred)
    if implementation == "fused":
        assert grad.stride() == pred.stride()


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_gradients_are_those_of_their_parts(implementation, dtype):
    """Past 64 MB they are stored around the caches."""
    pred, *rest = inputs((2, 9, 1, 1024 if dtype == torch.float32 else 2048, 1024), False)
    pred = pred.to(dtype).requires_grad_()
    (whole,) = torch.autograd.grad(weighted_sq_error(pred, *rest).sum(), pred)
    for i in range(2):
        row = [v[i : i + 1] for v in rest]
        (part,) = torch.autograd.grad(weighted_sq_error(pred[i : i + 1], *row).sum(), pred)
        assert torch.equal(part[i], whole[i])


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_registration_and_compile(implementation):
    pred, *rest = inputs((2, 3, 2, 4, 4), False, lambda x: x.contiguous(memory_format=torch.channels_last))
    op = torch.ops.mclr_fast.weighted_sq_error
    torch.library.opcheck(op.default, (pred.requires_grad_(), *rest, 0.5, "network", None, None))
    compiled = torch.compile(ops.weighted_sq_error, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(pred, *rest), weighted_sq_error(pred, *rest))

    x, x_noisy, sigma, weight = rest
    torch.library.opcheck(op.default, (pred, x, x_noisy, None, weight, 0.5, "network", sigma, sigma))
    given = {"c_skip": sigma, "c_out": sigma}
    found = compiled(pred, x, x_noisy, None, weight, **given)
    assert torch.equal(found, weighted_sq_error(pred, x, x_noisy, None, weight, **given))


WRONG = {
    "pred": torch.zeros(2, 3, 4, 4),
    "x": torch.zeros(2, 2, 1, 4, 4),
    "x_noisy": torch.zeros(2, 1, 4, 5),
    "sigma": torch.ones(()),
    "weight": torch.ones(3),
    "output": "logits",
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(name):
    names = ("pred", "x", "x_noisy", "sigma", "weight")
    arguments = dict(zip(names, inputs((2, 3, 1, 4, 4), False), strict=True)) | {name: WRONG[name]}
    with pytest.raises(ValueError, match=f"^{name} must be "):
        weighted_sq_error(**arguments)


ROW = torch.ones(2)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("^give c_skip and c_out together: only c_skip was given", {"sigma": None, "c_skip": ROW}),
        ("^give c_skip and c_out together: only c_out was given", {"sigma": None, "c_out": ROW}),
        ("^give sigma, or c_skip and c_out, not both", {"c_skip": ROW, "c_out": ROW}),
        ("^give sigma, or c_skip and c_out: neither was given", {"sigma": None}),
        (r"^c_skip must be \[2\], .* not \[3\]", {"sigma": None, "c_skip": torch.ones(3), "c_out": ROW}),
        (r"^c_out must be \[2\], .* not \[2, 1\]", {"sigma": None, "c_skip": ROW, "c_out": torch.ones(2, 1)}),
        (
            "^c_skip and c_out are for output='network'",
            {"sigma": None, "c_skip": ROW, "c_out": ROW, "output": "denoised"},
        ),
    ],
)
def test_scalings_come_once_and_whole(message, wrong):
    names = ("pred", "x", "x_noisy", "sigma", "weight")
    arguments = dict(zip(names, inputs((2, 3, 1, 4, 4), False), strict=True)) | wrong
    with pytest.raises(ValueError, match=message):
        weighted_sq_error(**arguments)
    with pytest.raises(ValueError, match=message):
        ops.contrast_loss(**arguments, coefficients_NR=torch.ones(2, 3))
