"""The drop-in losses: their values, the one forward, what stays out of the reference, and clear errors."""

import pickle
import re

import pytest
import torch
from edm2_loop import BATCH, NOISE, NUM_CLASSES, Run, make_net, minibatch
from torch.nn.functional import logsigmoid, one_hot

import mclr_fast
from mclr_fast.integrations.nvlabs_edm2 import CCALoss, CCDPOLoss, DDOLoss, MCLRLoss
from mclr_fast.objectives import pair_labels


def naive(net, images, classes, num_negatives, value, pairing, reference=None):
    """The loss a tuple at a time, 2NK evaluations, energies in float64, from the same draws."""
    z = torch.randn(len(images), 1, 1, 1)
    sigma = (NOISE["P_mean"] + NOISE["P_std"] * z).exp()
    eps = torch.randn_like(images)
    index = pair_labels(classes, num_negatives)

    def energy(model, x, i, label):
        s = sigma[i].item()
        denoised = model((x + s * eps[i])[None], sigma[i], one_hot(label[None], NUM_CLASSES).float())
        return (s**2 + 0.25) / (s * 0.5) ** 2 * (denoised.double() - x).square().sum()

    rows = []
    for i in range(len(images)):
        row = 0.0
        for j in index[i]:
            other = (images[j], i, classes[i]) if pairing == "images" else (images[i], i, classes[j])
            pairs = [(energy(m, images[i], i, classes[i]), energy(m, *other)) for m in (net, reference) if m]
            row += value(*pairs).item() / num_negatives
        rows.append(row)
    return rows


def dpo(e, r, beta=0.3):
    return -logsigmoid(beta * (-(e[0] - r[0]) + (e[1] - r[1])))


def cca(e, r, beta=0.3, lambda_=2.0):
    return -logsigmoid(-beta * (e[0] - r[0])) - lambda_ * logsigmoid(beta * (e[1] - r[1]))


@pytest.mark.parametrize(
    ("loss_fn", "value", "pairing"),
    [
        (MCLRLoss(**NOISE), lambda e: e[0] - e[1], "labels"),
        (MCLRLoss(**NOISE, num_negatives=1, dsm_weight=0.5), lambda e: 1.5 * e[0] - e[1], "labels"),
        (CCDPOLoss(0.3, **NOISE), dpo, "images"),
        (CCALoss(0.3, 2.0, **NOISE), cca, "images"),
        (CCALoss(0.3, 2.0, **NOISE, pairing="labels", num_negatives=2), cca, "labels"),
    ],
    ids=["mclr", "mclr-dsm", "ccdpo", "cca", "cca-labels"],
)
def test_values_are_those_of_the_algorithms(loss_fn, value, pairing):
    """Algorithms 1 and 2 as written, on the losses' own draws."""
    images, labels = minibatch(0, size=5)
    net, base = make_net(0).eval(), make_net(1).eval()
    models = [net]
    if not isinstance(loss_fn, MCLRLoss):
        loss_fn(net=base, images=images, labels=labels)  # the reference is frozen here
        models.append(loss_fn._frozen.network(base))
    torch.manual_seed(7)
    expected = naive(net, images, labels.argmax(1), loss_fn.num_negatives, value, pairing, *models[1:])
    torch.manual_seed(7)
    found = loss_fn(net=net, images=images, labels=labels)
    assert found.shape == (5,) and found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_ddo_negatives_are_samples_of_the_class(write_samples):
    """Grey level 10 i of sample i, which is of class i mod 4, at the net's range."""
    loss_fn = DDOLoss(0.3, 2.0, write_samples(), **NOISE, num_negatives=5)
    images, labels = minibatch(0)
    x, labels_NR = loss_fn.columns(images, labels.argmax(1), NUM_CLASSES)
    assert torch.equal(x[:, 0], images) and x.shape == (BATCH, 6, *images.shape[1:])
    assert torch.equal(labels_NR, labels.argmax(1)[:, None].expand(-1, 6))
    level = (x[:, 1:, 0, 0, 0] + 1) * 127.5 / 10
    torch.testing.assert_close(level, level.round(), atol=1e-4, rtol=0)
    assert torch.equal(level.round().long() % NUM_CLASSES, labels_NR[:, 1:])
    assert len(level.round().unique()) == 12  # all samples come


def test_one_forward_of_the_network(make_loss):
    """[N(1+K)] rows, once; and then one step: a second forward before the backward would fail."""
    net, loss_fn = make_net(), make_loss()
    Run(net, loss_fn).step()
    assert net.forwards == [BATCH * (1 + loss_fn.num_negatives)]
    images, labels = minibatch(0)
    first, second = (loss_fn(net=net, images=images, labels=labels).sum() for _ in range(2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (first + second).backward()


def test_every_parameter_is_in_the_graph(make_loss):
    """logvar too, with a zero gradient: it stays where it is."""
    run = Run(make_net(), make_loss())
    run.step()
    gradients = {name: p.grad for name, p in run.net.named_parameters()}
    assert all(g is not None for g in gradients.values())
    assert not gradients["logvar_linear.weight"].any() and gradients["emb.weight"].any()


def test_each_image_has_its_own_loss(make_loss):
    """A weight on one image reaches it alone: the losses may be summed in any proportion."""
    net, loss_fn = make_net(), make_loss()
    images, labels = minibatch(0)
    parts = []
    for weight in (torch.ones(BATCH), torch.arange(BATCH).float(), 1 - torch.arange(BATCH).float()):
        torch.manual_seed(3)
        loss = (loss_fn(net=net, images=images, labels=labels) * weight).sum()
        parts.append(torch.autograd.grad(loss, net.conv_in.weight)[0])
    torch.testing.assert_close(parts[1] + parts[2], parts[0], rtol=1e-4, atol=1e-4 * parts[0].abs().max())


def test_half_precision_inside(make_loss):
    """Their fp16 networks return float32 images; the losses agree with float32's."""
    found = []
    for dtype in (torch.float32, torch.float16):
        net, loss_fn = make_net(dtype=dtype), make_loss()
        images, labels = minibatch(0)
        loss_fn(net=net, images=images, labels=labels)
        torch.manual_seed(5)
        loss = loss_fn(net=net, images=images, labels=labels)
        loss.sum().backward()
        assert loss.dtype == torch.float32 and net.conv_in.weight.grad.isfinite().all()
        found.append(loss.detach())
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-2 * found[0].abs().max().item())


@pytest.mark.gpu
def test_on_a_gpu(make_loss):
    """Draws, pairs, samples and the reference follow the images' device."""
    net, loss_fn = make_net(dtype=torch.float16).cuda(), make_loss()
    images, labels = (value.cuda() for value in minibatch(0))
    for _ in range(2):
        loss = loss_fn(net=net, images=images, labels=labels)
        loss.sum().backward()
    assert loss.is_cuda and loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_reference_stays(losses):
    """Frozen at the first call, in eval mode; no part of the training moves it."""
    run = Run(make_net(), losses["ccdpo"]())
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    for _ in range(3):
        run.step()
    saved = run.loss_fn.__getstate__()["reference_weights"]
    assert saved["conv_in.weight"].dtype == torch.float16 and saved["freqs"].dtype == torch.float32
    frozen = run.loss_fn._frozen.network(run.net)
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    for name, value in frozen.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=2**-10, atol=2**-24)  # float16
        assert name == "freqs" or not torch.equal(value, run.net.state_dict()[name])
    assert all(p.grad is None for p in frozen.parameters())


def test_a_pickled_loss_gives_the_same_losses(make_loss):
    """With their snapshots: settings and reference survive, and so do the losses."""
    run = Run(make_net(), make_loss())
    run.step()
    copy = pickle.loads(pickle.dumps(run.loss_fn))
    images, labels = minibatch(9)
    found = []
    for loss_fn in (run.loss_fn, copy):
        torch.manual_seed(5)
        found.append(loss_fn(net=run.net.eval(), images=images, labels=labels))
    assert torch.equal(*found) and type(copy) is type(run.loss_fn)


@pytest.mark.parametrize("labels", [torch.eye(4), torch.arange(4), torch.zeros(4, 0)])
@pytest.mark.robust("batches")
def test_a_net_without_classes_has_nothing_to_contrast(labels):
    """A net whose label_dim is 0 is an error, not a loss of 0."""
    net = make_net(0).eval()
    net.label_dim = 0
    with pytest.raises(ValueError, match=r"this net has no classes \(label_dim 0\) to contrast"):
        MCLRLoss(**NOISE)(net, torch.randn(4, 1, 8, 8), labels)


def test_class_indices_are_one_hot_labels():
    """At the package's top too."""
    images, labels = minibatch(0, size=5)
    net, found = make_net(0).eval(), []
    net.label_dim = NUM_CLASSES  # as NVIDIA's says
    for given in (labels, labels.argmax(dim=1)):
        torch.manual_seed(1)
        found.append(mclr_fast.MCLRLoss(**NOISE)(net, images, given))
    assert torch.equal(*found)
    with pytest.raises(ValueError, match=rf"labels lie in \[1, {NUM_CLASSES}\]; this net's classes are 0 to"):
        mclr_fast.MCLRLoss(**NOISE)(net, images, torch.arange(5) % NUM_CLASSES + 1)
    with pytest.raises(ValueError, match=r"labels lie in \[0, 1000000000000\]"):
        mclr_fast.MCLRLoss(**NOISE)(net, images, torch.tensor([10**12, 0, 1, 2, 3]))
    with pytest.raises(ValueError, match=f"labels are of {NUM_CLASSES + 1} classes; this net's"):
        mclr_fast.MCLRLoss(**NOISE)(net, images, torch.eye(NUM_CLASSES + 1)[:5])
    for dtype in (torch.int32, torch.uint8):
        torch.manual_seed(1)
        assert torch.equal(mclr_fast.MCLRLoss(**NOISE)(net, images, labels.argmax(dim=1).to(dtype)), found[0])
    assert (mclr_fast.CCALoss, mclr_fast.CCDPOLoss, mclr_fast.DDOLoss) == (CCALoss, CCDPOLoss, DDOLoss)
    with pytest.raises(AttributeError, match="has no attribute 'x'"):
        mclr_fast.x  # noqa: B018


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(4), "class indices [N], or one-hot [N,classes] of at least 2 classes, not torch.float32"),
        (torch.ones(4, 0), "of at least 2 classes, not torch.float32 [4, 0]"),
        (torch.zeros(4, 4), "some row has not exactly one 1"),
        (
            torch.eye(4)[[1, 1, 1, 1]],
            "labels has 1 distinct class in this minibatch of 4, all that this GPU holds at once; the loss "
            "contrasts at least 2: raise --batch-gpu (--batch alone",
        ),
    ],
)
def test_labels_that_are_not_one_hot_are_refused(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MCLRLoss(**NOISE)(net=make_net(), images=torch.randn(4, 1, 8, 8), labels=labels)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.robust("batches")
def test_images_of_one_class_on_a_gpu_name_batch_gpu(losses, size):
    """Each loss that contrasts them stops, and names EDM2's --batch-gpu, for one image as for several."""
    images, labels = torch.randn(size, 1, 8, 8), torch.eye(NUM_CLASSES)[[2] * size]
    for name in ("mclr", "ccdpo", "cca"):
        with pytest.raises(ValueError, match=f"minibatch of {size}, .*: raise --batch-gpu .--batch alone"):
            losses[name]()(net=make_net(), images=images, labels=labels)
    assert losses["ddo"]()(net=make_net(), images=images, labels=labels).shape == (size,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MCLRLoss(**NOISE, num_negatives=0), "num_negatives must be at least 1, not 0"),
        (lambda: CCDPOLoss(0.0, **NOISE), "beta must be above 0, not 0.0"),
        (lambda: CCALoss(1.0, 1.0, **NOISE, pairing="x"), "pairing must be one of images, labels, not 'x'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "size", "message"),
    [
        ((0, 1, 2, 3), 16, r"are \[1, 16, 16\] images, but the training images are \[1, 8, 8\]"),
        ((0, 1, 1, 3), 8, "are of 3 classes up to 3, but the net knows classes 0 to 3"),
        ((0, 1, 2, 3, 4), 8, "are of 5 classes up to 4, but the net knows classes 0 to 3"),
    ],
    ids=["shape", "missing", "unknown"],
)
def test_negatives_that_do_not_fit(write_samples, labels, size, message):
    loss_fn = DDOLoss(1.0, 1.0, write_samples(labels, size), **NOISE)
    with pytest.raises(ValueError, match=message):
        Run(make_net(), loss_fn).step()


def test_no_negatives_at_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        DDOLoss(1.0, 1.0, tmp_path / "nowhere", **NOISE)
