"""The losses for VAR's and CCA's trainers: recorded steps, values of the formulas, samples of DDO's."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from var_loop import BATCH, CLASSES, LENGTH, NUM_CLASSES, make_net, minibatch

from mclr_fast.integrations.var import CCALoss, CCDPOLoss, MCLRLoss
from mclr_fast.objectives import pair_labels


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
