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
    held = [value for weights in (state["net"], *state["ema"]["emas"]) for value in weights.values()]
    assert len({value.untyped_storage().data_ptr() for value in held}) == len(held)  # no average is another
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


class EDM2Loss:
    """As NVIDIA's loop restores its own: the attributes are the file's, whatever it was made with."""

    def __init__(self, P_mean=0.0, P_std=0.0, sigma_data=0.0):
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data
        self._init_args, self._init_kwargs = (), {}

    def __call__(self, net, images, labels):
        sigma = (torch.randn(len(images), 1, 1, 1) * self.P_std + self.P_mean).exp()
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        denoised, logvar = net(images + torch.randn_like(images) * sigma, sigma, labels, return_logvar=True)
        return (weight / logvar.exp() * (denoised - images) ** 2 + logvar).sum(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("resolution", "channels", "options", "noise", "said"),
    [
        (8, 1, (), (-0.4, 1.0), True),
        (8, 3, ("--noise-level", "-1.2", "1.1"), (-1.2, 1.1), False),
        (64, 3, (), (-0.8, 1.6), False),
        (64, 4, ("--noise-level", "0.1", "0.7"), (0.1, 0.7), False),
    ],
)
@pytest.mark.robust("drop-in")
def test_their_own_loss_starts_from_any_size(
    write_model, tmp_path, capsys, resolution, channels, options, noise, said
):
    """Its P_mean and P_std are in the state: a preset's, EDM2Loss's own with a note, or --noise-level's."""
    folder, _ = write_model(img_resolution=resolution, img_channels=channels)
    path = tmp_path / "training-state-0000000.pt"
    assert convert.main([str(folder), "--to", "edm2-training-state", str(path), *options]) == 0
    assert ("--noise-level sets it" in capsys.readouterr().err) == said
    loss = EDM2Loss()
    made_with = set(loss.__dict__)
    loss.__dict__.clear()
    loss.__dict__.update(torch.load(path, weights_only=True)["loss_fn"])
    assert set(loss.__dict__) == made_with and (loss.P_mean, loss.P_std, loss.sigma_data) == (*noise, 0.5)
    net = write_model(img_resolution=resolution, img_channels=channels, seed=1)[1]
    images = torch.zeros(2, channels, resolution, resolution)
    assert loss(net, images, torch.eye(4)[:2]).isfinite().all()


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
