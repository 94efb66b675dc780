"""The losses for VAR's and CCA's trainers: recorded steps, values, what is dropped and kept, clear errors."""

import io
import json
import pickle
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from var_loop import BATCH, LENGTH, NET, NUM_CLASSES, Trainer, make_net, minibatch

from mclr_fast.integrations.var import CCALoss, CCDPOLoss, DDOLoss, MCLRLoss
from mclr_fast.models import describe, save_model
from mclr_fast.models.var import VQVAE
from mclr_fast.objectives import pair_labels

LOSSES = {
    "mclr": lambda **more: MCLRLoss(**more),
    "mclr-two": lambda **more: MCLRLoss(num_negatives=2, **more),
    "ccdpo": lambda **more: CCDPOLoss(0.1, **more),
    "cca": lambda **more: CCALoss(0.1, 2.0, **more),
    "cca-dropout": lambda **more: CCALoss(0.1, 2.0, uncond_ratio=0.3, pairing="rolled", **more),
}


VQVAE_NET = dict(vocab_size=16, z_channels=4, ch=32, v_patch_nums=(1, 2))


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    """A VQVAE, and the folder that it is in."""
    folder = tmp_path_factory.mktemp("vqvae")
    torch.manual_seed(0)
    made = VQVAE(**VQVAE_NET).eval()
    save_model(folder, made.state_dict(), describe(VQVAE_NET, "vqvae"))
    return made, folder


def write_tokens(path, labels, length=LENGTH, change=0):
    """Samples as `prepare --tokens` stores them; the first token of sample i is i, the others its class's."""
    pairs = []
    with zipfile.ZipFile(path, "w") as archive:
        for i, label in enumerate(labels):
            file, name = io.BytesIO(), f"00000/img-tokens-{i:08d}.npy"
            np.save(file, np.array([i, *[4 * label + change] * (length - 1)], dtype=np.int16))
            archive.writestr(name, file.getvalue())
            pairs.append([name, label])
        archive.writestr("dataset.json", json.dumps({"labels": pairs}))
    return path


CLASSES = [0, 1, 1, 2, 3, 2, 3, 3]


@pytest.fixture(scope="module")
def make_ddo(vqvae):
    """A DDOLoss against eight samples of the classes CLASSES."""
    path = write_tokens(vqvae[1] / "samples.zip", CLASSES)
    return lambda **more: DDOLoss(0.3, 2.0, path, vqvae[1], **more)


@pytest.fixture(params=[*LOSSES, "ddo"])
def make_loss(request, make_ddo):
    return LOSSES.get(request.param, make_ddo)


def train(trainer, steps):
    return [trainer.step() for _ in range(steps)]


class Recorded(nn.Module):
    """Answers with recorded logits, [2N,L,V]: N positives, then N negatives."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.pos_1LC = torch.zeros(1, logits.shape[1], 1)
        self.head = SimpleNamespace(weight=torch.zeros(logits.shape[2], 1))
        self.class_emb = SimpleNamespace(weight=torch.zeros(1001, 1))

    def forward(self, labels, inputs):
        self.labels = labels.view(-1, 2).T.flatten()
        return self.logits.view(2, -1, *self.logits.shape[1:]).transpose(0, 1).flatten(0, 1)


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("ar_losses")
    arrays = {name.removeprefix("step/"): torch.from_numpy(file[name]) for name in file if "step/" in name}
    return arrays | {"cases": json.loads(str(file["config_json"]))["step_cases"]}


@pytest.mark.parametrize("case", [0, 1, 3, 4])
def test_steps_of_ccas_release(recorded, monkeypatch, case):
    """CCA and DPO, without and with dropped labels: the loss, its gradient and the labels of the call."""
    said = recorded["cases"][case]
    if said["loss_type"] == "DPO":
        loss_fn = CCDPOLoss(said["beta"], pairing="rolled")
    else:
        ratio = {"uncond_ratio": said["uncond_ratio"]}
        loss_fn = CCALoss(said["beta"], said["lambda_"], pairing="rolled", **ratio)
    net, reference = Recorded(recorded["policy_logits"]), Recorded(recorded["ref_logits"])
    loss_fn.frozen_network = lambda net: reference
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: recorded["uniforms"])
    loss = loss_fn(net, recorded["labels"], torch.zeros(4, 4, 1), recorded["gt_BL"]).mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), recorded["loss"][case], rtol=0, atol=2e-6)
    expected = recorded[f"{case}/grad_policy_logits"]
    torch.testing.assert_close(net.logits.grad, expected, rtol=0, atol=2e-6)
    for model in (net, reference):
        assert torch.equal(model.labels, recorded[f"{case}/all_labels"])


def test_unlearning_of_ccas_release_is_mclr(recorded):
    """Up to a constant, the reference's share, and the factor lambda."""
    lambda_ = recorded["cases"][2]["lambda_"]
    net = Recorded(recorded["policy_logits"])
    loss_fn = MCLRLoss(1 / lambda_ - 1, pairing="rolled")
    loss = loss_fn(net, recorded["labels"], torch.zeros(4, 4, 1), recorded["gt_BL"]).mean()
    (lambda_ * loss).backward()
    torch.testing.assert_close(net.logits.grad, recorded["2/grad_policy_logits"], rtol=0, atol=2e-6)


def naive(net, reference, batch, loss_fn, value):
    """The loss a tuple at a time, from the same draws; energies of one image in float64."""
    labels, inputs, tokens = batch
    index = pair_labels(labels, loss_fn.num_negatives)

    def energy(model, image, label):
        log_p = model(label[None], inputs[image][None]).double().log_softmax(-1)[0]
        return -log_p[torch.arange(LENGTH), tokens[image]].sum()

    rows = []
    for i in range(len(labels)):
        row = 0.0
        for j in index[i]:
            other = (j, labels[i]) if loss_fn.pairing == "images" else (i, labels[j])
            pairs = [(energy(m, i, labels[i]), energy(m, *other)) for m in (net, reference) if m]
            row += value(*pairs).item() / loss_fn.num_negatives
        rows.append(row)
    return rows


def dpo(e, r):
    return -logsigmoid(0.3 * (-(e[0] - r[0]) + (e[1] - r[1])))


def cca(e, r):
    return -logsigmoid(-0.3 * (e[0] - r[0])) - 2 * logsigmoid(0.3 * (e[1] - r[1]))


@pytest.mark.parametrize(
    ("loss_fn", "value"),
    [
        (MCLRLoss(), lambda e: e[0] - e[1]),
        (MCLRLoss(num_negatives=3, dsm_weight=0.5), lambda e: 1.5 * e[0] - e[1]),
        (CCDPOLoss(0.3, num_negatives=2), dpo),
        (CCALoss(0.3, 2.0), cca),
        (CCALoss(0.3, 2.0, pairing="images"), cca),
    ],
    ids=["mclr", "mclr-share", "ccdpo", "cca", "cca-images"],
)
def test_values_are_those_of_the_formulas(loss_fn, value):
    """Of the labels that are given: their net drops half of them."""
    batch = minibatch(0)
    net, base = make_net(0), make_net(1)
    reference = None
    if not isinstance(loss_fn, MCLRLoss):
        loss_fn(base, *batch)  # the reference is frozen here
        reference = loss_fn.frozen_network(base)
    torch.manual_seed(7)
    found = loss_fn(net, *batch)
    assert found.shape == (BATCH,) and found.dtype == torch.float32 and net.cond_drop_rate == 0.5
    assert not (torch.cat(net.labels_seen) == NUM_CLASSES).any() and len(net.labels_seen) == 1
    for model in (net, base, reference):
        if model is not None:
            model.cond_drop_rate = 0.0
    torch.manual_seed(7)
    with torch.no_grad():
        expected = naive(net, reference, batch, loss_fn, value)
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_ddo_is_its_formula_on_samples_of_the_class(make_ddo, vqvae):
    """Every evaluation by itself: column 0 the image, the others samples, all under the row's label."""
    net, base, loss_fn = make_net(0).eval(), make_net(1).eval(), make_ddo(num_negatives=2)
    batch = labels, inputs, tokens = minibatch(0)
    loss_fn(base, *batch)  # the reference is frozen here
    reference = loss_fn.frozen_network(base)
    torch.manual_seed(7)
    found = loss_fn(net, *batch)
    torch.manual_seed(7)
    rows = loss_fn.columns(net, labels, inputs, tokens)
    assert torch.equal(rows.labels, labels[:, None].expand(-1, 3))
    assert torch.equal(rows.tokens[:, 0], tokens) and torch.equal(rows.inputs[:, 0], inputs)
    samples = rows.tokens[:, 1:]
    assert torch.equal(torch.tensor(CLASSES)[samples[..., 0]], rows.labels[:, 1:])
    assert torch.equal(samples[..., 1:], 4 * rows.labels[:, 1:, None].expand(-1, -1, 4))
    expected = vqvae[0].teacher_inputs(samples.flatten(0, 1)).view(*samples.shape[:2], 4, 4)
    torch.testing.assert_close(rows.inputs[:, 1:], expected)
    net.cond_drop_rate = reference.cond_drop_rate = 0.0

    def gap(row, column):
        def energy(model):
            logits = model(rows.labels[row, column][None], rows.inputs[row, column][None])
            log_p = logits.double().log_softmax(-1)[0]
            return -log_p.gather(1, rows.tokens[row, column][:, None]).sum()

        return energy(net) - energy(reference)

    with torch.no_grad():
        for row in range(BATCH):
            value = -logsigmoid(-0.3 * gap(row, 0))
            value -= 2 * torch.stack([logsigmoid(0.3 * gap(row, k)) for k in (1, 2)]).mean()
            assert found[row].item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "change", "length", "message"),
    [
        (CLASSES, 4, LENGTH, "the data hold token 16, and the network's are 0 to 15"),
        (CLASSES, 0, 14, "are [14] images, but the training images are [5]"),
        ([0, 1, 2], 0, LENGTH, "are of 3 classes up to 2, but the net knows classes 0 to 3"),
    ],
)
def test_samples_that_do_not_fit(vqvae, tmp_path, classes, change, length, message):
    path = write_tokens(tmp_path / "s.zip", classes, length, change)
    with pytest.raises(ValueError, match=re.escape(message)):
        DDOLoss(0.3, 2.0, path, vqvae[1])(make_net(), *minibatch(0))


def test_samples_that_are_no_tokens(write_samples):
    with pytest.raises(ValueError, match=r"are \[1, 8, 8\] images, not tokens: make tokens of them by"):
        DDOLoss(0.3, 2.0, write_samples())


def test_samples_of_another_vqvae(make_ddo, vqvae, tmp_path):
    with pytest.raises(ValueError, match=r"its scales are \[1, 2\], the transformer's \[1, 2, 3\]"):
        make_ddo()(
            make_net(patch_nums=(1, 2, 3)), *minibatch(0)[:2], torch.zeros(BATCH, 14, dtype=torch.int64)
        )
    with pytest.raises(FileNotFoundError, match="none"):
        DDOLoss(0.3, 2.0, tmp_path / "none.zip", vqvae[1])
    with pytest.raises(TypeError, match="pairing"):
        make_ddo(pairing="labels")


def test_dropped_labels():
    """Those of whole rows, as often as uncond_ratio says; none is the net's last class embedding."""
    net = make_net().eval()
    loss_fn = CCALoss(0.1, 2.0, uncond_ratio=0.25, num_negatives=2)
    for seed in range(40):
        torch.manual_seed(seed)
        loss_fn(net, *minibatch(seed))
    is_none = (torch.cat(net.labels_seen) == NUM_CLASSES).view(-1, 3)
    assert torch.equal(is_none[:, 0], is_none.all(dim=1)) and torch.equal(is_none[:, 0], is_none.any(dim=1))
    assert 0.18 < is_none[:, 0].float().mean() < 0.32


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


LABELS, INPUTS, TOKENS = minibatch(0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((LABELS.float(), INPUTS, TOKENS), "labels must be int64 [N], not torch.float32 [8]"),
        ((LABELS, INPUTS, TOKENS[0]), "tokens must be int64 [N,L], not torch.int64 [5]"),
        ((LABELS, INPUTS, [TOKENS[:, :1], TOKENS[:, 1:]]), "not list (a list of scales: torch.cat("),
        ((LABELS, INPUTS, TOKENS[:, :4]), "tokens are 4 an image; the net's scales have 5 in all"),
        ((LABELS, INPUTS[:3], TOKENS), "are of 8, 3 and 8 images: give as many of each"),
        ((LABELS[:0], INPUTS[:0], TOKENS[:0]), "are of 0, 0 and 0 images"),
        ((LABELS + 1, INPUTS, TOKENS), "labels lie in [1, 4]; this net knows 0 to 3"),
        ((LABELS, INPUTS, TOKENS + 1), "16]; this net knows 0 to 15"),
        ((LABELS, INPUTS, TOKENS - 5), "tokens lie in [-5, "),
        ((LABELS * 0, INPUTS, TOKENS), "labels has 1 distinct class in this minibatch of 8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(batch, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MCLRLoss()(make_net(), *batch)


def test_another_net_is_refused():
    with pytest.raises(ValueError, match="the net, a Linear, has no 'class_emb': these losses are for VAR's"):
        MCLRLoss()(nn.Linear(1, 1), LABELS, INPUTS, TOKENS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MCLRLoss(num_negatives=0), "num_negatives must be at least 1, not 0"),
        (lambda: MCLRLoss(pairing="x"), "pairing must be one of labels, rolled, images, not 'x'"),
        (lambda: CCDPOLoss(0.0), "beta must be above 0, not 0.0"),
        (lambda: CCALoss(1.0, -1.0), "lambda_ must be above 0, not -1.0"),
        (lambda: CCALoss(1.0, 1.0, uncond_ratio=1.0), "uncond_ratio must be at least 0 and below 1, not 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
