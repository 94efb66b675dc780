import pytest
import torch

from mclr_fast.ops.triton_kernels import heun_update

SIGMA, SIGMA_HAT, SIGMA_DATA = 1.3, 1.4, 0.5


def op(guidance, guided, heun, sigma_next, output, dtype):
    def split(tensors):
        tensors = list(tensors)
        guide = tensors.pop(0) if guided else None
        slope = tensors.pop() if heun else None
        return guide, *tensors, slope

    def forward(pred, *others):
        guide, x, x_hat, slope = split(others)
        return heun_update.forward(
            pred, guide, guidance, x, SIGMA, x_hat, SIGMA_HAT, sigma_next, slope, SIGMA_DATA, output, dtype
        )

    def formula(pred, *others):
        guide, x, x_hat, slope = split(others)
        p = pred.to(x.dtype)
        if guided:
            p = guide.to(x.dtype).lerp(p, guidance)
        if output == "network":
            total = SIGMA**2 + SIGMA_DATA**2
            p = SIGMA_DATA**2 / total * x + SIGMA * SIGMA_DATA / total**0.5 * p
        d = (x - p) / SIGMA
        x_next = x_hat + (sigma_next - SIGMA_HAT) * (d if slope is None else (slope + d) / 2)
        scaled = x_next / (sigma_next**2 + SIGMA_DATA**2) ** 0.5
        net_input = torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1)
        return x_next, d, net_input if x.dtype == torch.float64 else net_input.to(dtype)

    return forward, None, formula


@pytest.mark.parametrize("output", ["network", "denoised"])
@pytest.mark.parametrize(
    ("guided", "heun", "sigma_next"), [(False, False, 0.8), (True, True, 0.0), (True, False, 2.0)]
)
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (1, 1, 1, 1), (2, 3, 7, 5), (1, 4, 18, 18)])
def test_formula(hold, randn, dtype, shape, guided, heun, sigma_next, output):
    predictions = [randn(*shape, dtype=dtype) for _ in range(1 + guided)]
    images = [randn(*shape) for _ in range(2 + heun)]
    case = op(2.5 if guided else 1.0, guided, heun, sigma_next, output, dtype)
    (x_next, d, net_input), _ = hold(*case, *predictions, *images)
    assert x_next.is_contiguous() and d.is_contiguous()
    assert net_input.is_contiguous(memory_format=torch.channels_last)


def test_layouts(hold, randn, layout):
    tensors = [layout(randn(2, 3, 4, 4)) for _ in range(5)]
    hold(*op(1.5, True, True, 0.5, "network", torch.float32), *tensors)


def test_formats_may_differ(hold, randn):
    tensors = [randn(2, 3, 4, 4) for _ in range(5)]
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    hold(*op(1.5, True, True, 0.5, "network", torch.float32), *tensors)
