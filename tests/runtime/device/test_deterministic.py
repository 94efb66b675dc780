"""Reproducible kernels: what is switched, and that a run asks for it before it computes."""

import os

import pytest
import torch

from mclr_fast.runtime.device.deterministic import CUBLAS, use_deterministic_kernels


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setenv(CUBLAS, "of the test")  # restored with the rest
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


def test_all_three_libraries(monkeypatch):
    monkeypatch.delenv(CUBLAS)
    torch.backends.cudnn.benchmark = True
    use_deterministic_kernels()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ[CUBLAS] == ":4096:8"


def test_a_workspace_that_was_chosen_stays():
    use_deterministic_kernels()
    assert os.environ[CUBLAS] == "of the test"


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_asks_for_it_with_the_option(tiny_run, asked):
    tiny_run("run", train={"deterministic": asked})
    assert torch.are_deterministic_algorithms_enabled() == asked
