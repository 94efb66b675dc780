"""Three ways to compute one step: the same numbers, the same state, and the apex that is not apex."""

import dataclasses
import importlib.util
import sys
import types

import pytest
import tiny_run as tiny
import torch

from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.training import optimizer as optimizer_module
from mclr_fast.training.optimizer import OPTIMIZERS, check_optimizer

BATCH = tiny.BATCH


class FusedAdam(torch.optim.Optimizer):
    """Stands in for NVIDIA's: steps counted by the group, AdamW by default, gradients read as memory."""

    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-8, adam_w_mode=True):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        assert not adam_w_mode

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                flat = torch.as_strided(p.grad, (p.numel(),), (1,))
                inner = torch.nn.Parameter(p.view(-1).clone())
                inner.grad = flat.clone()
                adam = torch.optim.Adam([inner], lr=group["lr"], betas=group["betas"], eps=group["eps"])
                adam.state[inner] = {
                    "step": torch.tensor(group["step"] - 1.0),
                    "exp_avg": state["exp_avg"].view(-1),
                    "exp_avg_sq": state["exp_avg_sq"].view(-1),
                }
                adam.step()
                p.copy_(inner.view(p.shape))


@pytest.fixture
def apex(monkeypatch):
    """apex(**attributes of apex.optimizers): a package apex with these."""

    def install(**attributes):
        package, optimizers = types.ModuleType("apex"), types.ModuleType("apex.optimizers")
        vars(optimizers).update(attributes)
        package.optimizers = optimizers
        package.__spec__ = importlib.util.spec_from_loader("apex", loader=None)
        package.__path__ = []
        monkeypatch.setitem(sys.modules, "apex", package)
        monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)

    return install


def trainer(outdir, stop_after=0, **train):
    outdir.mkdir(exist_ok=True)
    config = tiny.tiny_config(**train)
    return tiny.tiny_trainer(outdir, config, tiny.StopAfter(stop_after))


def state_after(outdir, images, **train):
    run = trainer(outdir, **train)
    run.train_until(images)
    return tiny.all_tensors(run)


AVERAGES = [{"ema_beta": 0.5}, {"ema": "power", "ema_stds": (0.05, 0.1, 0.2)}]


@pytest.mark.parametrize("name", ["torch-adam", "apex"])
@pytest.mark.parametrize("averages", AVERAGES, ids=["plain", "power"])
def test_all_agree_over_five_steps(tmp_path, apex, name, averages):
    apex(FusedAdam=FusedAdam)
    expected = state_after(tmp_path / "ours", 5 * BATCH, **averages)
    found = state_after(tmp_path / name, 5 * BATCH, optimizer=name, **averages)
    start = state_after(tmp_path / "start", 0, **averages)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            found[key], value, rtol=1e-5, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )
    moved = [key for key in expected if not torch.allclose(start[key], expected[key], rtol=1e-5, atol=1e-6)]
    assert {"net/unet.out_conv.weight", "optimizer/num_steps"} < set(moved)
    assert any(key.startswith("ema/") for key in moved)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_run_ends_with_the_same_bits(tmp_path, apex, name):
    apex(FusedAdam=FusedAdam)
    whole = state_after(tmp_path / "whole", 4 * BATCH, optimizer=name)
    with pytest.raises(Interrupted):
        trainer(tmp_path / "stopped", stop_after=2, optimizer=name).train_until(4 * BATCH)
    resumed = state_after(tmp_path / "stopped", 4 * BATCH, optimizer=name)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_state_is_anybodys(tmp_path, apex):
    """What one optimizer saved another goes on from."""
    apex(FusedAdam=FusedAdam)
    expected = state_after(tmp_path / "whole", 4 * BATCH)
    for name, images in zip([*OPTIMIZERS, "torch-adam"], range(BATCH, 5 * BATCH, BATCH), strict=True):
        found = state_after(tmp_path / "mixed", images, optimizer=name)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


def test_no_apex_is_one_clear_line(tiny_run, monkeypatch, files):
    monkeypatch.setattr(optimizer_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"NVIDIA apex is not installed\. Build NVIDIA's .*APEX_CUDA_EXT=1"):
        tiny_run("run", train={"optimizer": "apex"})
    assert not (files / "run").exists()


def test_the_other_apex_is_one_clear_line(apex, tiny_run, files):
    apex()
    with pytest.raises(
        RunError, match=r"cannot import name 'FusedAdam'.*pip uninstall apex\. Build"
    ) as error:
        tiny_run("run", train={"optimizer": "apex"})
    assert "\n" not in str(error.value)
    assert not (files / "run").exists()


def test_an_apex_without_its_kernels_is_one_clear_line(apex, tiny_run, files):
    def without_kernels(*args, **kwargs):
        raise RuntimeError("apex.optimizers.FusedAdam requires cuda extensions")

    apex(FusedAdam=without_kernels)
    with pytest.raises(RunError, match=r"--optimizer apex cannot make a step on cpu: .*cuda extensions"):
        tiny_run("run", train={"optimizer": "apex"})
    assert not (files / "run").exists()


def test_the_real_one_is_found(apex, tiny_run):
    apex(FusedAdam=FusedAdam)
    tiny_run("run", train={"optimizer": "apex"})
    check_optimizer("apex", torch.device("cpu"))


def test_every_optimizer_has_its_word():
    from typing import get_type_hints

    from mclr_fast.config import TrainConfig

    (words,) = (
        get_type_hints(TrainConfig)[f.name] for f in dataclasses.fields(TrainConfig) if f.name == "optimizer"
    )
    assert set(words.__args__) == OPTIMIZERS.keys()
