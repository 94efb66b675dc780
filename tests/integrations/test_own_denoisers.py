"""The losses on other denoisers than EDM2's: how each is called, its labels, its images, mistakes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from mclr_fast import CCALoss, CCDPOLoss, DDOLoss, MCLRLoss
from mclr_fast.integrations import asked
from mclr_fast.models import load

NUM_CLASSES, SIZE = 4, 10
NOISE = dict(P_mean=-0.5, P_std=1.2)


class Denoiser(nn.Module):
    """D(x; sigma, c) with class indices and sigma [M]; it knows nothing of this package."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.classes = nn.Embedding(NUM_CLASSES, 1)
        self.calls = []

    def embedded(self, labels):
        return self.classes(labels)

    def forward(self, x, sigma, labels):
        self.calls.append((x, sigma, labels))
        return self.conv(x) + self.embedded(labels).view(-1, 1, 1, 1) / (1 + sigma.view(-1, 1, 1, 1))


class OneHot(Denoiser):
    """Takes labels one-hot, of whatever dtype."""

    def embedded(self, labels):
        return labels.float() @ self.classes.weight


class WithLogvar(OneHot):
    """Called as EDM2's."""

    label_dim = NUM_CLASSES

    def forward(self, x, sigma, labels, return_logvar=False):
        denoised = super().forward(x, sigma, labels)
        return (denoised, torch.zeros_like(sigma)) if return_logvar else denoised


class PassesOn(nn.Module):
    """A wrapper, as libraries have them."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


def make(kind=Denoiser):
    torch.manual_seed(0)
    return kind()


def minibatch():
    torch.manual_seed(1)
    return torch.randn(SIZE, 1, 8, 8), torch.arange(SIZE) % NUM_CLASSES


def loss_of(loss_fn, net, images, labels):
    torch.manual_seed(2)
    return loss_fn(net, images, labels)


@pytest.mark.parametrize(
    "make_loss",
    [lambda: MCLRLoss(**NOISE), lambda: CCDPOLoss(0.1), lambda: CCALoss(0.1, 2.0)],
    ids=["mclr", "ccdpo", "cca"],
)
def test_every_way_of_calling_gives_one_loss(make_loss):
    """Indices, or one-hot labels of any dtype, of nets with and without EDM2's arguments: the same [N]."""
    images, index = minibatch()
    expected = loss_of(make_loss(), make(), images, index)
    assert expected.shape == (SIZE,) and expected.dtype == torch.float32 and expected.isfinite().all()
    hot = one_hot(index, NUM_CLASSES)
    for kind, given in ((OneHot, [hot, hot.float(), hot.bool()]), (WithLogvar, [index, hot, hot.double()])):
        for labels in given:
            found = loss_of(make_loss(), make(kind), images, labels)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.sum().backward()


def test_a_net_is_called_once_with_what_it_takes():
    """Labels as they were given, sigma [M] and the noisy images [M,C,H,W]; EDM2's: one-hot and [M,1,1,1]."""
    images, index = minibatch()
    for kind, labels, dtype, width, sigma_ndim in (
        (Denoiser, index.int(), torch.int64, (), 1),
        (OneHot, one_hot(index, NUM_CLASSES), torch.int64, (NUM_CLASSES,), 1),
        (WithLogvar, index, torch.float32, (NUM_CLASSES,), 4),
    ):
        net = make(kind)
        loss_of(MCLRLoss(num_negatives=2), net, images, labels)
        ((x, sigma, seen),) = net.calls
        assert x.shape == (3 * SIZE, 1, 8, 8) and sigma.ndim == sigma_ndim and len(sigma) == 3 * SIZE
        assert seen.dtype == dtype and seen.shape == (3 * SIZE, *width)


def test_wrappers_are_seen_through():
    """What passes all arguments on is asked as the net inside may have to be."""
    images, index = minibatch()
    hot = one_hot(index, NUM_CLASSES).float()
    expected = loss_of(MCLRLoss(), make(WithLogvar), images, hot)
    found = loss_of(MCLRLoss(), PassesOn(make(WithLogvar)), images, hot)
    torch.testing.assert_close(found, expected)
    compiled = torch.compile(make(), backend="eager")
    torch.testing.assert_close(loss_of(MCLRLoss(), compiled, images, index), expected)


def test_sigma_data_is_the_nets_unless_given():
    """Wrong labels' energies are weighted by it: eq. 6."""
    images, index = minibatch()
    net = make()
    default = loss_of(MCLRLoss(), net, images, index)
    assert torch.equal(loss_of(MCLRLoss(sigma_data=asked.SIGMA_DATA), net, images, index), default)
    net.sigma_data = 1.0
    own = loss_of(MCLRLoss(), net, images, index)
    assert not torch.allclose(own, default)
    assert torch.equal(loss_of(MCLRLoss(sigma_data=1.0), net, images, index), own)
    assert torch.equal(loss_of(MCLRLoss(sigma_data=0.5), net, images, index), default)


def test_a_loaded_model_is_a_net_like_any_other(write_model):
    """EDM2's of this package, with indices: what its one-hot labels give."""
    folder, _ = write_model()
    net, (images, index) = load(folder).train(), minibatch()
    loss = loss_of(MCLRLoss(), net, images, index)
    torch.testing.assert_close(loss, loss_of(MCLRLoss(), net, images, one_hot(index, NUM_CLASSES).float()))
    loss.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_network_in_memory_is_a_reference():
    """Frozen as it is when it is given, though it is trained on; in a checkpoint it is known by its hash."""
    images, index = minibatch()
    net = make()
    first, by_default = CCDPOLoss(0.1, reference=net), CCDPOLoss(0.1)
    before = loss_of(first, net, images, index), loss_of(by_default, net, images, index)
    with torch.no_grad():
        net.conv.weight.add_(0.1)
    after = loss_of(first, net, images, index), loss_of(by_default, net, images, index)
    assert torch.equal(*before) and torch.equal(*after) and not torch.equal(before[0], after[0])
    with pytest.raises(ValueError, match=r"was trained against the reference .* the given net is"):
        CCDPOLoss(0.1, reference=net).__setstate__(first.__getstate__())


def test_ddos_samples_need_no_number_of_classes(write_samples):
    """A net that says none is trained on the samples' classes; a label that they lack is refused."""
    images, index = minibatch()
    assert loss_of(DDOLoss(0.1, 1.0, write_samples()), make(), images, index).shape == (SIZE,)
    few = DDOLoss(0.1, 1.0, write_samples((0, 1, 2)))
    with pytest.raises(ValueError, match="are of 3 classes up to 2, but the net knows classes 0 to 3"):
        loss_of(few, make(), images, index)


class Tuple(Denoiser):
    def forward(self, x, sigma, labels):
        return (super().forward(x, sigma, labels),)


class Small(Denoiser):
    def forward(self, x, sigma, labels):
        return super().forward(x, sigma, labels)[:, :, ::2]


IMAGES = torch.linspace(-1, 1, SIZE * 64).view(SIZE, 1, 8, 8)


@pytest.mark.parametrize(
    ("kind", "images", "labels", "said"),
    [
        (Denoiser, (IMAGES * 127).byte(), None, r"images are torch.uint8: .* images.float\(\) / 127.5 - 1"),
        (Denoiser, IMAGES * 127.5 + 127.5, None, r"images lie in \[0, 255\]: .* images.float\(\) / 127"),
        (Denoiser, IMAGES[:, 0], None, r"images are \[10, 8, 8\] and labels \[10\]: give images \[N,C,H,W\]"),
        (Denoiser, IMAGES, torch.arange(3), r"images are \[10, 1, 8, 8\] and labels \[3\]"),
        (Denoiser, IMAGES, torch.tensor(1), r"and labels \[\]: .* a label for each"),
        (Denoiser, IMAGES, -torch.arange(SIZE), r"labels lie in \[-9, 0\]; this net's classes begin at 0"),
        (Denoiser, IMAGES, torch.ones(SIZE).bool(), r"not torch.bool \[10\]"),
        (OneHot, IMAGES, torch.ones(SIZE, NUM_CLASSES).long(), "some row has not exactly one 1"),
        (Denoiser, IMAGES, torch.ones(SIZE).long(), r"1 distinct class .* raise the batch size or shuffle"),
        (Tuple, IMAGES, None, r"the net, a Tuple, gave a tuple for noisy images \[40, 1, 8, 8\]: it must"),
        (Small, IMAGES, None, r"gave a tensor \[40, 1, 4, 8\] for noisy images \[40, 1, 8, 8\]"),
    ],
)
@pytest.mark.robust("batches")
def test_mistakes_are_one_line(kind, images, labels, said):
    """Images as bytes or of another range, labels of another form, a net that gives something else."""
    labels = torch.arange(SIZE) % NUM_CLASSES if labels is None else labels
    with pytest.raises(ValueError, match=said) as caught:
        MCLRLoss()(make(kind), images, labels)
    assert "\n" not in str(caught.value)


def test_images_of_zero_to_one_are_remarked_on():
    """A network may be trained on them, but EDM2's are not."""
    _, index = minibatch()
    with pytest.warns(UserWarning, match=r"images lie in \[0, 1\]: .* give it images \* 2 - 1"):
        MCLRLoss()(make(), IMAGES / 2 + 0.5, index)
