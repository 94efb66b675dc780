"""`python -m mclr_fast.convert --to edm2-training-state`: what NVIDIA's loop starts from."""

import pytest
import torch
from edm2_loop import NOISE, Run, minibatch

from mclr_fast import convert
from mclr_fast.integrations.nvlabs_edm2 import MCLRLoss


@pytest.fixture
def door(tmp_path, capsys):
    """`door(snapshot, name)` -> exit code, the file, stderr."""

    def call(snapshot, name="training-state-0000000.pt"):
        path = tmp_path / "run" / name
        code = convert.main([str(snapshot), "--to", "edm2-training-state", str(path)])
        return code, path, capsys.readouterr().err

    return call


def test_the_state_holds_the_base_everywhere_and_no_progress(door, write_model):
    folder, net = write_model()
    code, path, _ = door(folder)
    state = torch.load(path, weights_only=True)
    assert code == 0 and list(state) == ["state", "net", "loss_fn", "optimizer", "ema"]
    assert state["state"] == {"cur_nimg": 0, "total_elapsed_time": 0}
    assert state["ema"]["stds"] == [0.05, 0.1]
    for weights in (state["net"], *state["ema"]["emas"]):
        assert weights.keys() == net.state_dict().keys()
        for name, value in net.state_dict().items():
            assert torch.equal(weights[name], value) and weights[name].dtype == torch.float32
            assert weights[name].shape == value.shape  # gains are 0-dim, as published
    optimizer = torch.optim.Adam(net.parameters(), lr=1.0)
    optimizer.load_state_dict(state["optimizer"])
    assert not optimizer.state and optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def test_their_loop_resumes_it(door, write_model):
    """From a random net: the first loss is the base's, and it trains."""
    folder, base = write_model()
    path = door(folder)[1]
    run = Run(write_model(seed=1)[1], MCLRLoss(**NOISE))
    run.load(path)
    images, labels = minibatch(0)
    found = []
    for net in (run.net, base):
        torch.manual_seed(3)
        found.append(run.loss_fn(net=net, images=images, labels=labels))
    assert torch.equal(*found)
    run.step()
    assert run.state["cur_nimg"] > 0 and run.loss_fn.P_mean == NOISE["P_mean"]


@pytest.mark.parametrize(
    ("img_channels", "noise"), [(3, (-0.8, 1.6)), (4, (-0.4, 1.0))], ids=["img64", "img512"]
)
def test_noise_level_of_the_preset(door, write_model, img_channels, noise):
    """For EDM2's own loss, whose attributes their checkpoint replaces."""
    folder, _ = write_model(img_resolution=64, img_channels=img_channels)
    loss_fn = torch.load(door(folder)[1], weights_only=True)["loss_fn"]
    assert (loss_fn["P_mean"], loss_fn["P_std"]) == noise and loss_fn["sigma_data"] == 0.5


def test_mistakes_are_one_line_each_and_write_nothing(door, write_model, tmp_path):
    """One line each, before anything is written."""
    folder, _ = write_model()
    code, path, err = door(folder, "base.pt")
    assert code == 1 and "base.pt is not a name that EDM2's loop resumes" in err
    code, _, err = door(tmp_path / "nowhere")
    assert code == 1 and "no model at" in err
    assert not path.parent.exists()
    assert door(folder, "training-state-0000012.pt")[0] == 0
    code, path, err = door(folder)
    assert code == 1 and "holds training-state-0000012.pt, which EDM2's loop would resume" in err
    assert not path.exists()
    assert all(line.startswith("error: ") for line in err.splitlines())
