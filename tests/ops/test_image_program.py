"""A program's steps against the ops of the same names, in float64."""

import pytest
import torch
from torch.nn import functional as F

from mclr_fast.ops import _native
from mclr_fast.ops.image_program import ImageProgram
from mclr_fast.ops.reference.magnitude_preserving import mp_silu
from mclr_fast.ops.reference.mp_cat_silu import mp_cat_silu
from mclr_fast.ops.reference.mp_sum_clip import mp_sum_clip_silu
from mclr_fast.ops.reference.pixel_norm_silu import pixel_norm_silu
from mclr_fast.ops.reference.qkv_norm import qkv_norm


@pytest.fixture(autouse=True)
def kernels(implementation):
    if _native.load("cpu")[0] is None:
        pytest.skip("the kernels are not built")
    if implementation == "reference":
        pytest.skip("a program has no reference: the network is called as ever")


def check(record, channels, height=4, width=4, emb_size=0):
    """record(program, x) -> its output; gives what compares that with expected(x, emb), in float64."""
    program = ImageProgram(height, width, channels)
    program.finish(record(program, program.input))

    def against(expected):
        x, emb = torch.randn(3, channels, height, width), torch.randn(3, emb_size)
        found, truth = program.run(x, emb), expected(x.double(), emb.double())
        assert found.shape == truth.shape
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=2e-6 * truth.abs().max().item())

    return against


@pytest.mark.parametrize("out_channels", [1, 3, 8, 16, 17, 40])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (4, 4), (3, 5), (1, 1), (2, 6)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolve(out_channels, height, width, kernel):
    weight = torch.randn(out_channels, 5, kernel, kernel)
    against = check(lambda program, x: program.convolve(x, weight), 5, height, width)
    against(lambda x, emb: F.conv2d(x, weight.double(), padding=kernel // 2))


@pytest.mark.parametrize("channels", [2, 16, 21])
@pytest.mark.parametrize("part", [0, 1])
def test_steps_with_two_results(channels, part):
    check(lambda program, x: program.pixel_norm_silu(x)[part], channels)(
        lambda x, emb: pixel_norm_silu(x)[part]
    )
    check(lambda program, x: program.mp_cat_silu(x, x, 0.3)[part], channels)(
        lambda x, emb: mp_cat_silu(x, x, 0.3)[part]
    )
    check(lambda program, x: program.mp_sum_clip(x, x, 0.3, 0.5, silu=True)[part], channels)(
        lambda x, emb: mp_sum_clip_silu(x, x, 0.3, 0.5)[part]
    )


@pytest.mark.parametrize("channels", [2, 16, 21])
def test_steps_with_one_result(channels):
    check(lambda program, x: program.mp_sum_clip(x, x, 0.3)[0], channels)(lambda x, emb: x / 0.58**0.5)
    check(lambda program, x: program.modulate_silu(x), channels, emb_size=channels)(
        lambda x, emb: mp_silu(x * (1 + emb[:, :, None, None]))
    )


def test_resampling():
    check(lambda program, x: program.downsample(x), 5, 4, 6)(lambda x, emb: F.avg_pool2d(x, 2))
    check(lambda program, x: program.upsample(x), 5, 4, 6)(
        lambda x, emb: x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (8, 8)])
@pytest.mark.parametrize(("heads", "depth"), [(1, 3), (2, 8), (3, 20)])
def test_attend(height, width, heads, depth):
    def expected(x, emb):
        q, k, v = qkv_norm(x, heads)
        y = (q @ k.mT / depth**0.5).softmax(dim=-1) @ v
        return y.transpose(1, 2).reshape(3, height, width, -1).permute(0, 3, 1, 2)

    check(lambda program, x: program.attend(x, heads), 3 * heads * depth, height, width)(expected)


def test_a_weight_that_does_not_fit():
    program = ImageProgram(4, 4, 3)
    with pytest.raises(ValueError, match="does not go with 3 channels"):
        program.convolve(program.input, torch.randn(8, 2, 3, 3))
