"""float16's loss scale and a library's Adam on two ranks, whole or sharded: as on one."""

from pathlib import Path

import numpy as np
import precision_run as program
import pytest
import torch
from run_log import assert_same_losses, column

from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors
from mclr_fast.training import loss_scale

PROGRAM = Path(program.__file__)


@pytest.fixture(scope="module")
def first_scale(tmp_path_factory):
    """A loss scale from which one or two of the steps overflow on this processor.

    None of them by so little that the order of a sum decides: ranks add up in another.
    """

    def skipped(scale):
        outdir = tmp_path_factory.mktemp("search")
        program.train("fp16", outdir, Ranks("cpu"), "replicate", scale)
        return list(column(outdir, "skipped"))

    scale = loss_scale.START
    while scale <= loss_scale.HIGHEST:
        steps = skipped(scale)
        if steps[-1] in (1, 2) and steps == skipped(0.95 * scale) == skipped(1.05 * scale):
            return scale
        scale *= 2**0.75
    raise AssertionError("no loss scale makes only the first steps overflow")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, on_two_ranks, first_scale):
    outdir = tmp_path_factory.mktemp("two")
    on_two_ranks(PROGRAM, outdir, first_scale)
    return outdir


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory, first_scale):
    outdir = tmp_path_factory.mktemp("one")
    for case in program.CASES:
        program.train(case, outdir / case, Ranks("cpu"), "replicate", first_scale)
    return outdir


@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_float16_is_scaled_and_skipped_alike(one_rank, two_ranks, sharding):
    """Scaled, skipped and unscaled alike."""
    expected, found = one_rank / "fp16", two_ranks / f"fp16-{sharding}"
    assert column(expected, "skipped")[-1] in (1, 2)
    assert list(column(found, "loss_scale")) == list(column(expected, "loss_scale"))
    assert list(column(found, "skipped")) == list(column(expected, "skipped"))
    np.testing.assert_allclose(column(found, "positive"), column(expected, "positive"), rtol=3e-3)
    (groups, _), (truths, _) = (load_tensors(folder / "results.safetensors") for folder in (found, expected))
    flat, truth = (
        torch.cat([g.flatten() for _, g in sorted(x["gradients"].items())]) for x in (groups, truths)
    )
    assert (flat - truth).norm() <= 5e-3 * truth.norm()


def test_torchs_adam_ends_where_one_rank_does(one_rank, two_ranks):
    expected, found = one_rank / "torch-adam", two_ranks / "torch-adam-shard"
    assert_same_losses(found, expected)
    (groups, _), (truths, _) = (load_tensors(folder / "results.safetensors") for folder in (found, expected))
    labels = [f"{std:.3f}" for std in program.STDS]
    assert {*labels, "gradients"} == truths.keys() == groups.keys()
    for label in labels:
        truth = truths[label]
        for name, value in truth.items():
            bound = 1e-3 * value.abs().max().item()  # Adam's first steps go by gradients' signs
            assert (groups[label][name] - value).abs().max().item() <= bound, (label, name)
