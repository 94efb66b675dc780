"""The losses in VAR's and CCA's loop: training, resuming, the reference, DDP, torch.compile."""

import pickle

import pytest
import torch
from var_loop import BATCH, LOSSES, NET, NUM_CLASSES, Trainer, make_net, minibatch

from mclr_fast.integrations.var import CCALoss, CCDPOLoss
from mclr_fast.models import describe, save_model


@pytest.fixture(params=[*LOSSES, "ddo"])
def make_loss(request, make_ddo):
    return LOSSES.get(request.param, make_ddo)


def train(trainer, steps):
    return [trainer.step() for _ in range(steps)]


@pytest.mark.parametrize(("loss_fn", "halves"), [(CCDPOLoss(0.1), 1), (CCALoss(0.1, 2.0), 1 + 2)])
def test_at_the_first_step_the_reference_is_the_net(loss_fn, halves):
    """To the bit, where the net drops no branch: no precision is lost in keeping it."""
    loss = loss_fn(make_net(), *minibatch(0))
    assert torch.equal(loss, halves * torch.tensor(2.0).log().expand(BATCH))


def test_the_reference_drops_no_branch():
    """In eval mode, whatever the net is in, and it stays as it was."""
    trainer = Trainer(make_net(drop_path_rate=0.5), CCALoss(0.1, 2.0))
    before = {name: value.clone() for name, value in trainer.var_wo_ddp.state_dict().items()}
    train(trainer, 2)
    frozen = trainer.loss_fn.frozen_network(trainer.var)
    assert trainer.var.training and not frozen.training
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(before["head.weight"], trainer.var_wo_ddp.head.weight)


def test_training_contrasts_classes(make_loss):
    """Thirty steps of their loop: an image becomes likelier under its own label than under others."""
    trainer = Trainer(make_net(), make_loss(), accumulation=2)
    losses = [sum(row) for row in train(trainer, 30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    labels, inputs, tokens = minibatch(1000)
    net = trainer.var_wo_ddp.eval()
    net.cond_drop_rate = 0.0

    def nll(labels):
        log_p = net(labels, inputs).log_softmax(-1)
        return -log_p.gather(2, tokens[..., None]).sum((1, 2))

    with torch.no_grad():
        assert nll(labels).mean() + 1 < nll((labels + 1) % NUM_CLASSES).mean()


def test_three_and_three_are_six(tmp_path, make_loss):
    """The state that the loss adds to theirs: a resumed run compares with what it began with."""
    whole = train(Trainer(make_net(), make_loss()), 6)
    first = Trainer(make_net(), make_loss())
    losses = train(first, 3)
    first.save(tmp_path / "ar-ckpt-last.pth")
    second = Trainer(make_net(seed=5), make_loss())
    second.load(tmp_path / "ar-ckpt-last.pth")
    assert losses + train(second, 3) == whole


def test_reference_at_a_path(tmp_path):
    """For trainers that keep no state of the loss: the file that the run began from, and its hash."""
    base = make_net(1)
    save_model(tmp_path, base.state_dict(), describe(NET, "var"))
    named = CCALoss(0.1, 2.0, tmp_path)
    copied = CCALoss(0.1, 2.0)
    copied(base, *minibatch(0))
    assert named.reference_sha256 == copied.reference_sha256
    net, found = make_net(0), []
    for loss_fn in (named, copied, pickle.loads(pickle.dumps(named))):
        torch.manual_seed(3)
        found.append(loss_fn(net, *minibatch(0)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    other = CCALoss(0.1, 2.0)
    other(net, *minibatch(0))
    with pytest.raises(
        ValueError, match=r"this run was trained against the reference \w{12}, but .* is \w{12}"
    ):
        CCALoss(0.1, 2.0, tmp_path).load_state_dict(other.state_dict())


def test_reference_of_other_scales(tmp_path):
    arguments = NET | {"patch_nums": (1, 2, 3)}
    save_model(tmp_path, make_net(patch_nums=(1, 2, 3)).state_dict(), describe(arguments, "var"))
    with pytest.raises(ValueError, match=r"does not fit the network: '\w+' is"):
        CCDPOLoss(0.1, tmp_path)(make_net(), *minibatch(0))


def test_inside_ddp(tmp_path, make_loss):
    """Three steps with one rank, in this process; unused parameters would stop the second."""
    bare = train(Trainer(make_net(), make_loss(), accumulation=2), 3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = train(Trainer(make_net(), make_loss(), accumulation=2), 3)
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(torch.tensor(wrapped), torch.tensor(bare), rtol=1e-5, atol=1e-4)


def test_compiled():
    """A net inside torch.compile is the net inside: its labels are kept, its copy is of the weights."""
    net = make_net()
    torch.manual_seed(1)
    bare = CCALoss(0.1, 2.0)(net, *minibatch(0))
    torch.manual_seed(1)
    compiled = CCALoss(0.1, 2.0)(torch.compile(net, backend="eager"), *minibatch(0))
    torch.testing.assert_close(compiled, bare, rtol=1e-5, atol=1e-5)
    assert net.cond_drop_rate == 0.5


@pytest.mark.gpu
def test_on_a_gpu(make_loss):
    """Under autocast, as they train; draws, pairs and the reference follow the labels' device."""
    net, loss_fn = make_net().cuda(), make_loss()
    batch = [value.cuda() for value in minibatch(0)]
    for _ in range(2):
        with torch.autocast("cuda", torch.float16):
            loss = loss_fn(net, *batch)
        loss.sum().backward()
    assert loss.is_cuda and loss.dtype == torch.float32 and loss.isfinite().all()
