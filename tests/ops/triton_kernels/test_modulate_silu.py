import pytest
import torch

from mclr_fast.ops.reference.magnitude_preserving import mp_silu
from mclr_fast.ops.reference.philox import random_uniform
from mclr_fast.ops.triton_kernels import modulate_silu

PLAIN = (0.0, 0, 0, None)


def formula_of(dropout, seed, stream, position):
    def formula(y, emb):
        num_rows = len(y) if len(emb) == 1 else len(emb)
        y = y.repeat_interleave(num_rows // max(len(y), 1), dim=0)
        out = mp_silu(y * (1 + emb).to(y.dtype)[:, :, None, None])
        if dropout:
            keep = random_uniform(seed, stream, position, out[0].numel()).view(out.shape) >= dropout
            out = out * keep / (1 - dropout)
        return out

    return formula


def op(*key):
    def forward(y, emb):
        return modulate_silu.forward(y, emb, *key)

    def backward(grads, values, y, emb):
        return modulate_silu.backward(grads[0], y, emb, *key)

    return forward, backward, formula_of(*key)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((0, 4, 2, 2), 0), ((0, 4, 2, 2), 1), ((1, 1, 1, 1), 1), ((2, 5, 7, 3), 2), ((2, 5, 7, 3), 6)],
)
def test_formula(hold, randn, dtype, shape, rows):
    y, emb = randn(*shape, dtype=dtype), randn(rows, shape[1])
    (out,), (grad_y, _) = hold(*op(*PLAIN), y, emb)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert grad_y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_several_tiles(hold, randn, rows):
    hold(*op(*PLAIN), randn(2, 96, 9, 8), randn(rows, 96))


def test_layouts(hold, randn, layout):
    hold(*op(*PLAIN), layout(randn(2, 6, 3, 4)), randn(4, 6))


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 24, 4, 6)])
def test_dropout(hold, randn, device, dtype, shape):
    """Rows of an image share a mask where they share a position, and only there."""
    position = torch.tensor([7, 7, 2**33 + 1, 5, 5, 5], device=device)
    y, emb = randn(*shape, dtype=dtype), randn(6, shape[1])
    key = (0.4, -3, 1, position)
    (out,), _ = hold(*op(*key), y, emb)
    keep = random_uniform(*key[1:], out[0].numel()).view(out.shape) >= 0.4
    assert torch.equal(out != 0, keep)
