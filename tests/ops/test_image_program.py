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

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 0.51 * 2**-7}  # the latter its output's rounding


@pytest.fixture(autouse=True)
def kernels(implementation):
    if _native.load("cpu")[0] is None:
        pytest.skip("the kernels are not built")
    if implementation == "reference":
        pytest.skip("a program has no reference: the network is called as ever")


@pytest.fixture(params=TOLERANCE, ids=str)
def check(request):
    """check(record, channels, ...): a program in float32 or bfloat16, whose output record(program, x) gives.

    What it returns compares that with expected(x, emb), in float64.
    """
    dtype = request.param

    def check(record, channels, height=4, width=4, emb_size=0):
        program = ImageProgram(height, width, channels, dtype)
        program.finish(record(program, program.input))

        def against(expected):
            x, emb = torch.randn(3, channels, height, width).to(dtype), torch.randn(3, emb_size)
            found, truth = program.run(x, emb), expected(x.double(), emb.double())
            assert found.shape == truth.shape and found.dtype == dtype
            limit = TOLERANCE[dtype] * truth.abs().max().item()
            torch.testing.assert_close(found.double(), truth, rtol=0, atol=limit)

        return against

    return check


@pytest.mark.parametrize("out_channels", [1, 3, 8, 16, 17, 40])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (4, 4), (3, 5), (1, 1), (2, 6)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolve(check, out_channels, height, width, kernel):
    weight = torch.randn(out_channels, 5, kernel, kernel).bfloat16()
    against = check(lambda program, x: program.convolve(x, weight), 5, height, width)
    against(lambda x, emb: F.conv2d(x, weight.double(), padding=kernel // 2))


@pytest.mark.parametrize("channels", [2, 16, 21])
@pytest.mark.parametrize("part", [0, 1])
def test_steps_with_two_results(check, channels, part):
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
def test_steps_with_one_result(check, channels):
    check(lambda program, x: program.mp_sum_clip(x, x, 0.3)[0], channels)(lambda x, emb: x / 0.58**0.5)
    check(lambda program, x: program.modulate_silu(x), channels, emb_size=channels)(
        lambda x, emb: mp_silu(x * (1 + emb[:, :, None, None]))
    )


def test_resampling(check):
    check(lambda program, x: program.downsample(x), 5, 4, 6)(lambda x, emb: F.avg_pool2d(x, 2))
    check(lambda program, x: program.upsample(x), 5, 4, 6)(
        lambda x, emb: x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (8, 8)])
@pytest.mark.parametrize(("heads", "depth"), [(1, 3), (2, 8), (3, 20)])
def test_attend(check, height, width, heads, depth):
    def expected(x, emb):
        q, k, v = qkv_norm(x, heads)
        y = (q @ k.mT / depth**0.5).softmax(dim=-1) @ v
        return y.transpose(1, 2).reshape(3, height, width, -1).permute(0, 3, 1, 2)

    check(lambda program, x: program.attend(x, heads), 3 * heads * depth, height, width)(expected)


def test_a_weight_that_does_not_fit():
    program = ImageProgram(4, 4, 3)
    with pytest.raises(ValueError, match="does not go with 3 channels"):
        program.convolve(program.input, torch.randn(8, 2, 3, 3))


def test_bfloat16_rounds_what_is_multiplied_and_not_its_sums():
    """With e = 2^-8, half a unit in the last place of 1: 1 + e + e is a bfloat16, and 1 + e rounds to 1."""
    x = torch.tensor([1, 2**-8, 2**-8]).view(1, 3, 1, 1).expand(1, 3, 4, 4)

    def output(*weights):
        program = ImageProgram(4, 4, 3, torch.bfloat16)
        y = program.input
        for weight in weights:
            y = program.convolve(y, torch.tensor(weight).float()[:, :, None, None])
        return program.finish(y).run(x, torch.zeros(1, 0)).unique().tolist()

    assert output([[1, 1, 1]]) == [1 + 2**-7]
    assert output([[1, 1, 0], [1, 0, 0]], [[1, -1]]) == [0]
    assert output([[1 + 2**-8, 0, 0], [1, 0, 0]], [[1, -1]]) == [0]


def test_other_dtypes():
    assert not ImageProgram.available(torch.float16)
    with pytest.raises(ValueError, match=r"float32 or bfloat16, not torch.float16"):
        ImageProgram(4, 4, 3, torch.float16)
