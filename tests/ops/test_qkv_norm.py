import pytest
import torch
from torch.autograd import gradcheck

from mclr_fast.ops import qkv_norm


def formula(qkv, num_heads):
    """Channel head * 3d + c * 3 + i is component c of part i (0: q, 1: k, 2: v)."""
    depth = qkv.shape[1] // (3 * num_heads)
    flat = qkv.flatten(2)
    parts = []
    for i in range(3):
        heads = [flat[:, h * 3 * depth + i : (h + 1) * 3 * depth : 3] for h in range(num_heads)]
        part = torch.stack(heads, dim=1)
        part = part / (1e-4 + part.square().mean(2, keepdim=True).sqrt())
        parts.append(part.transpose(2, 3))
    return tuple(parts)


@pytest.mark.parametrize(
    ("shape", "num_heads"),
    [((0, 12, 2, 2), 2), ((1, 9, 1, 1), 1), ((3, 30, 5, 3), 2), ((2, 45, 2, 2), 5)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(assert_same, layout, shape, num_heads, dtype):
    qkv = layout(torch.randn(shape, dtype=dtype))
    assert_same(lambda x: qkv_norm(x, num_heads), lambda x: formula(x, num_heads), qkv)


def test_gradcheck():
    qkv = torch.randn(1, 12, 1, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: qkv_norm(x, 2), qkv)
