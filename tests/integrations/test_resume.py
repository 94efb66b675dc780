"""Training that stops and goes on, and training on several ranks, as NVIDIA's loop does both."""

from pathlib import Path

import pytest
import torch
from edm2_loop import LOSSES, NOISE, Run, make_net

from mclr_fast.integrations.nvlabs_edm2 import CCDPOLoss

PROGRAM = Path(__file__).with_name("edm2_loop.py")


def train(run, steps):
    return [run.step() for _ in range(steps)]


@pytest.mark.parametrize("through", ["__setstate__", "__dict__"])
def test_three_and_three_are_six(tmp_path, make_loss, through):
    """Also with a reference that was copied at the first call: the net in the checkpoint has moved on."""
    whole = train(Run(make_net(), make_loss()), 6)
    first = Run(make_net(), make_loss())
    losses = train(first, 3)
    first.save(tmp_path / "training-state.pt")
    second = Run(make_net(seed=5), make_loss())  # their loop starts from a random net
    second.load(tmp_path / "training-state.pt", through)
    assert losses + train(second, 3) == whole


def test_the_reference_is_not_the_fine_tuned_net(tmp_path):
    """What the test above would miss if the reference mattered to no loss: without its state they differ."""
    first = Run(make_net(), CCDPOLoss(0.1, **NOISE))
    train(first, 3)
    path = tmp_path / "training-state.pt"
    first.save(path)
    resumed, forgetful = (Run(make_net(seed=5), CCDPOLoss(0.1, **NOISE)) for _ in range(2))
    resumed.load(path)
    forgetful.load(path)
    forgetful.loss_fn = CCDPOLoss(0.1, **NOISE)
    assert resumed.step() != forgetful.step()


def test_settings_of_the_constructor_stay(tmp_path):
    """As after a change of loss_kwargs; the reference comes from the checkpoint."""
    first = Run(make_net(), CCDPOLoss(0.1, **NOISE))
    first.step()
    second = CCDPOLoss(0.7, **NOISE, num_negatives=1)
    second.__setstate__(first.loss_fn.__getstate__())
    assert (second.beta, second.num_negatives) == (0.7, 1)
    assert second.reference_sha256 == first.loss_fn.reference_sha256 is not None


def test_a_copy_made_before_gives_way():
    """A loss that was called and then restored compares with the checkpoint's reference."""
    first, second = (Run(make_net(seed), CCDPOLoss(0.1, **NOISE)) for seed in range(2))
    first.step()
    second.step()
    second.loss_fn.__setstate__(first.loss_fn.__getstate__())
    second.step()
    weights = first.loss_fn.reference_weights
    assert second.loss_fn.reference_sha256 == first.loss_fn.reference_sha256
    frozen = second.loss_fn._frozen.network(second.net).state_dict()
    assert all(torch.equal(frozen[name], weights[name].float()) for name in weights)


def test_a_state_without_a_loss():
    """What `mclr_fast.convert` writes holds none."""
    loss_fn = CCDPOLoss(0.7, **NOISE)
    loss_fn.__setstate__({})
    assert loss_fn.beta == 0.7 and loss_fn.reference_weights is None


def test_a_damaged_reference():
    run = Run(make_net(), CCDPOLoss(0.1, **NOISE))
    run.step()
    state = run.loss_fn.__getstate__()
    state["reference_weights"]["conv_in.weight"][0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="the saved reference is damaged"):
        CCDPOLoss(0.1, **NOISE).__setstate__(state)


def test_reference_at_a_path(write_model):
    """Not the net at the first call but the model at `reference`."""
    folder, base = write_model()
    run = Run(write_model(seed=1)[1], CCDPOLoss(0.1, folder, **NOISE))
    run.step()
    frozen = run.loss_fn._frozen.network(run.net).state_dict()
    for name, value in base.state_dict().items():
        torch.testing.assert_close(frozen[name], value, rtol=2**-10, atol=2**-24)


def test_another_reference_than_the_run_began_with(write_model):
    loss_fn = CCDPOLoss(0.1, write_model()[0], **NOISE)
    other = CCDPOLoss(0.1, write_model(seed=1)[0], **NOISE)
    with pytest.raises(
        ValueError, match=r"this run was trained against the reference \w{12}, but .* is \w{12}"
    ):
        other.__setstate__(loss_fn.__getstate__())


def test_reference_of_another_architecture(write_model):
    loss_fn = CCDPOLoss(0.1, write_model(model_channels=16)[0], **NOISE)
    with pytest.raises(ValueError, match=r"model0-other does not fit the network: '\S+' is \[\d+"):
        Run(write_model()[1], loss_fn).step()


def test_no_reference_at_the_path():
    with pytest.raises(FileNotFoundError, match="no model at nowhere"):
        CCDPOLoss(0.1, "nowhere", **NOISE)


@pytest.mark.slow
def test_two_ranks(tmp_path, losses, on_two_ranks):
    """2 ranks of 2 accumulation rounds take the steps of 4 rounds in one process, and agree."""
    on_two_ranks(PROGRAM, tmp_path, 2, *LOSSES)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for loss in LOSSES:
        bare = Run(make_net(), losses[loss](), rounds=4)
        expected = torch.tensor(train(bare, 3))
        found = torch.cat([torch.tensor(rank[loss][0]) for rank in ranks], dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
        for name, value in bare.net.state_dict().items():
            assert torch.equal(ranks[0][loss][1][name], ranks[1][loss][1][name])
            torch.testing.assert_close(ranks[0][loss][1][name], value, rtol=1e-3, atol=1e-4)


def test_inside_ddp(tmp_path, make_loss):
    """Three steps with one rank, in this process; unused parameters would stop the second."""
    bare = train(Run(make_net(), make_loss()), 3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        run = Run(make_net(), make_loss())
        wrapped = train(run, 3)
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(torch.tensor(wrapped), torch.tensor(bare), rtol=1e-5, atol=1e-4)
