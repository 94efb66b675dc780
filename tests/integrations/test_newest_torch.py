"""NVIDIA's loop at the newest torch: what stops it, and the edits of docs/edm2-code.md that let it run."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from edm2_loop import Images, InfiniteSampler, Run, make_net

from mclr_fast.integrations.nvlabs_edm2 import MCLRLoss
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.edm2.training_state import write_training_state

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/edm2-code.md").read_text()
NOISE = dict(P_mean=-0.4, P_std=1.0)


def steps(run, count):
    return [run.step() for _ in range(count)]


@pytest.mark.robust("drop-in")
def test_their_sampler_ends_the_loop_before_its_first_step(make_loss):
    """From torch 2.10 on their InfiniteSampler, unedited, ends the loop before its first step."""
    with pytest.raises(TypeError, match=r"object\.__init__\(\) takes exactly one argument"):
        Run(make_net(), make_loss(), edited=False).step()
    assert next(iter(InfiniteSampler(Images()))) < len(Images())


@pytest.mark.robust("drop-in")
def test_their_loader_refuses_what_their_loop_has_written(tmp_path):
    """From torch 2.6 on their loader, unedited, refuses a state with a learning rate of numpy's."""
    run = Run(make_net(), MCLRLoss(**NOISE), edited=True)
    run.step()
    run.save(tmp_path / "training-state-0000012.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"(?s)Weights only.*numpy"):
        Run(make_net(), MCLRLoss(**NOISE), edited=False).load(tmp_path / "training-state-0000012.pt")


@pytest.mark.parametrize("through", ["__setstate__", "__dict__"])
@pytest.mark.robust("drop-in")
def test_with_both_edits_a_run_stops_and_goes_on(tmp_path, make_loss, through):
    """With the guide's two edits each loss trains at the newest torch, stops, and goes on the same."""
    whole = steps(Run(make_net(), make_loss(), edited=True), 6)
    first = Run(make_net(), make_loss(), edited=True)
    losses = steps(first, 3)
    first.save(tmp_path / "training-state-0000036.pt")
    second = Run(make_net(seed=5), make_loss(), edited=True)
    second.load(tmp_path / "training-state-0000036.pt", through)
    assert losses + steps(second, 3) == whole


@pytest.mark.robust("drop-in")
def test_the_file_that_convert_writes_needs_no_edit(tmp_path, write_model):
    """What `convert --to edm2-training-state` writes is read by torch.load as it is."""
    net = write_model()[1]
    assert isinstance(net, Precond)
    write_training_state(net, tmp_path / "training-state-0000000.pt")
    state = torch.load(tmp_path / "training-state-0000000.pt", map_location="cpu", weights_only=True)
    assert state["net"].keys() == net.state_dict().keys()


@pytest.mark.robust("drop-in")
def test_the_variable_stands_for_the_second_edit(tmp_path):
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 lets the unedited loader read the run's own states."""
    run = Run(make_net(), MCLRLoss(**NOISE), edited=True)
    run.step()
    run.save(tmp_path / "training-state-0000012.pt")
    program = "import sys, torch; print(torch.load(sys.argv[1], map_location='cpu')['state']['cur_nimg'])"
    command = [sys.executable, "-c", program, tmp_path / "training-state-0000012.pt"]
    name = re.search(r"`(TORCH_FORCE_\w+)=1`", GUIDE)[1]
    done = subprocess.run(command, env={**os.environ, name: "1"}, capture_output=True, text=True)
    assert done.stdout == "12\n", done.stderr


@pytest.mark.robust("drop-in")
def test_the_guide_names_the_versions_and_the_edits():
    """The guide says from which torch on which line of theirs needs which edit, as the stand-in has it."""
    rows = re.findall(r"^\| (.*?) \| (2\.\d+) \| (.*?) \|$", GUIDE, re.MULTILINE)
    table = {version: (what, edit) for what, version, edit in rows}
    assert "InfiniteSampler" in table["2.10"][0] and "`super().__init__()`" in table["2.10"][1]
    assert "training state" in table["2.6"][0] and "weights_only=False" in table["2.6"][1]
    wanted = re.search(r'"torch>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert (int(wanted[1]), int(wanted[2])) >= (2, 10)  # so the guide may say that both are always needed
