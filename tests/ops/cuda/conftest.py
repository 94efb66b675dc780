"""The CUDA kernels under the host shim (`host`) and on a GPU (`device`); driver.py builds and calls them."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("cuda_driver", Path(__file__).with_name("driver.py"))
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)


@pytest.fixture(autouse=True)
def implementation():
    """These tests call the kernels themselves: once, whichever implementation the ops use."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The kernels' source, compiled for the host under the shim."""
    compiler = shutil.which("g++") or pytest.skip("no g++ here")
    return driver.host_kernels(compiler, tmp_path_factory.mktemp("host") / "kernels.so")


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    """The kernels compiled by nvcc for this machine's GPU."""
    nvcc = shutil.which("nvcc") or pytest.skip("no nvcc here")
    return driver.device_kernels(nvcc, tmp_path_factory.mktemp("device") / "kernels.so")
