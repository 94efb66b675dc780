import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import heun_update

SIGMA_DATA, SIGMA, SIGMA_HAT, SIGMA_NEXT = 0.6, 1.7, 2.1, 0.9
STEP = {"sigma": SIGMA, "sigma_hat": SIGMA_HAT, "sigma_next": SIGMA_NEXT, "sigma_data": SIGMA_DATA}


def formula(pred, x, x_hat, slope, guide, guidance, output):
    """EDM's algorithm 2, lines 7 to 11, in float64."""
    pred, x, x_hat, slope, guide = (v if v is None else v.double() for v in (pred, x, x_hat, slope, guide))
    if guide is not None:
        pred = guide + guidance * (pred - guide)
    if output == "network":
        variance = SIGMA**2 + SIGMA_DATA**2
        pred = SIGMA_DATA**2 / variance * x + SIGMA * SIGMA_DATA / variance**0.5 * pred
    d = (x - pred) / SIGMA
    mean = d if slope is None else (d + slope) / 2
    x_next = x_hat + (SIGMA_NEXT - SIGMA_HAT) * mean
    net_input = x_next / (SIGMA_NEXT**2 + SIGMA_DATA**2) ** 0.5
    return x_next, d, torch.cat([net_input, torch.ones_like(net_input[:, :1])], dim=1)


def check(results, expected, dtype):
    x_next, d, net_input = results
    assert x_next.is_contiguous() and d.is_contiguous()
    assert net_input.is_contiguous(memory_format=torch.channels_last)
    state = x_next.dtype
    for found, truth, own in zip(results, expected, (state, state, dtype), strict=True):
        assert found.shape == truth.shape and found.dtype == own
        if truth.numel():
            limit = 8 * torch.finfo(state).eps + (torch.finfo(own).eps if own != state else 0)
            assert (found.double() - truth).abs().max() <= limit * truth.abs().max()


SHAPES = [
    (0, 3, 4, 4),
    (2, 3, 0, 4),
    (1, 1, 1, 1),
    (2, 1, 16, 16),
    (2, 2, 9, 11),
    (3, 3, 5, 7),
    (2, 4, 12, 8),
    (2, 8, 40, 20),
    (1, 17, 19, 21),
    (1, 3, 49, 41),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("output", ["network", "denoised"])
@pytest.mark.parametrize("heun", [False, True])
def test_formula(layout, shape, dtype, output, heun):
    pred, guide = layout(torch.randn(shape).to(dtype)), layout(torch.randn(shape).to(dtype))
    x, x_hat, slope = torch.randn(3, *shape)
    slope = slope if heun else None
    found = heun_update(pred, x, x_hat=x_hat, slope=slope, output=output, dtype=dtype, **STEP)
    check(found, formula(pred, x, x_hat, slope, None, 1, output), dtype)
    guided = {"guide": guide, "guidance": 1.7}
    found = heun_update(pred, x, x_hat=x_hat, slope=slope, output=output, dtype=dtype, **guided, **STEP)
    check(found, formula(pred, x, x_hat, slope, guide, 1.7, output), dtype)


def test_mixed_formats_and_dtypes():
    pred = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last).bfloat16()
    guide = torch.randn(3, 2, 7, 5).permute(1, 0, 3, 2)
    x, x_hat, slope = torch.randn(3, 2, 5, 7, 3).movedim(-1, 2)
    found = heun_update(pred, x, x_hat=x_hat, slope=slope, guide=guide.bfloat16(), guidance=0.3, **STEP)
    check(found, formula(pred, x, x_hat, slope, guide.bfloat16(), 0.3, "network"), torch.float32)


def test_float64_state_keeps_its_precision():
    pred, (x, x_hat, slope) = torch.randn(2, 3, 5, 7), torch.randn(3, 2, 3, 5, 7, dtype=torch.float64)
    found = heun_update(pred, x, x_hat=x_hat, slope=slope, **STEP)
    expected = formula(pred, x, x_hat, slope, None, 1, "network")
    check(found, expected, torch.float32)


def test_the_last_step_ends_at_the_denoised_image():
    pred, x = torch.randn(2, 2, 1, 4, 4)
    x_next, _, net_input = heun_update(pred, x, 0.5, x, 0.5, 0.0, output="denoised")
    torch.testing.assert_close(x_next, pred, rtol=0, atol=1e-6)
    torch.testing.assert_close(net_input[:, :1], x_next / 0.5)


IMAGE = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("^pred must be", {"pred": IMAGE[:1]}),
        ("^x_hat must be", {"x_hat": IMAGE[:1]}),
        ("^slope must be", {"slope": IMAGE[:1]}),
        ("^guide must be", {"guide": IMAGE[:1], "guidance": 2.0}),
        ("needs a guide", {"guidance": 2.0}),
        ("^sigma must be positive", {"sigma": 0.0}),
        ("^output must be", {"output": "logits"}),
    ],
)
def test_errors(message, wrong):
    with pytest.raises(ValueError, match=message):
        heun_update(**({"pred": IMAGE, "x": IMAGE, "x_hat": IMAGE} | STEP | wrong))


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_large_results_are_those_of_their_parts(implementation, num_channels, dtype):
    """Past 64 MB they are stored around the caches."""
    x = torch.randn(17, num_channels, 1024, 1024 // num_channels)
    pred = x.to(dtype).contiguous(memory_format=torch.channels_last)
    whole = heun_update(pred, x, x_hat=x, slope=x, dtype=dtype, **STEP)
    for i in (0, 16):
        image = x[i : i + 1]
        part = heun_update(pred[i : i + 1], image, x_hat=image, slope=image, dtype=dtype, **STEP)
        assert all(torch.equal(found[0], expected[i]) for found, expected in zip(part, whole, strict=True))


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_registration_and_compile(implementation):
    pred, x, x_hat, slope = torch.randn(4, 2, 3, 4, 4)
    op = torch.ops.mclr_fast.heun_update.default
    tail = (0.5, "network", torch.bfloat16)
    torch.library.opcheck(op, (pred, x_hat, 1.5, x, 2.0, x_hat, 2.0, 1.0, slope, *tail))
    torch.library.opcheck(op, (pred.bfloat16(), None, 1.0, x, 2.0, x_hat, 2.0, 1.0, None, *tail))
    compiled = torch.compile(ops.heun_update, fullgraph=True, backend="aot_eager")
    arguments = (pred, x, 2.0, x_hat, 2.0, 1.0)
    for found, expected in zip(compiled(*arguments), heun_update(*arguments), strict=True):
        assert torch.equal(found, expected) and found.stride() == expected.stride()
