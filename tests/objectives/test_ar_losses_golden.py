"""CCA, DPO and unlearning against arrays recorded from the autoregressive reference program.

Energies are -log p, the losses means over samples, K = 1.
"""

import json

import pytest
import torch

from mclr_fast.objectives import CCA, CCDPO, MCLR


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("ar_losses")
    arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config_json"}
    return arrays | {"config": json.loads(str(file["config_json"]))}


def make(loss_type, beta, lambda_, **_):
    return CCDPO(beta) if loss_type == "DPO" else CCA(beta, lambda_)


def table(recorded, model):
    """-log p of the matched and the mismatched pair, float64 [N, 2]."""
    return -torch.stack([recorded[f"logp/{model}_{side}"] for side in ("pos", "neg")], dim=1).double()


@pytest.mark.parametrize("loss_type", ["CCA", "DPO"])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_loss_and_gradients(recorded, loss_type, case):
    energy, reference = (table(recorded, model) for model in ("policy", "ref"))
    objective = make(loss_type, **recorded["config"]["cases"][case])
    loss = objective(energy.requires_grad_(), reference).loss_N.mean()
    (grad,) = torch.autograd.grad(-loss, energy)  # with respect to log p
    torch.testing.assert_close(loss, recorded[f"{loss_type}/loss"][case], rtol=1e-10, atol=0)
    for column, side in enumerate(("pos", "neg")):
        expected = recorded[f"{loss_type}/grad_policy_{side}"][case]
        torch.testing.assert_close(grad[:, column], expected, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("case", [1, 2])
def test_unlearning_is_mclr_with_denoising(recorded, case):
    """-gap_+ + lambda gap_-: (160) with beta = 1/lambda - 1, divided by lambda's inverse."""
    lambda_ = recorded["config"]["cases"][case]["lambda_"]
    coefficients = lambda_ * MCLR(dsm_weight=1 / lambda_ - 1).coefficients(2).double()
    for column, side in enumerate(("pos", "neg")):
        expected = -recorded[f"unlearning/grad_policy_{side}"][case] * 6
        torch.testing.assert_close(coefficients[column].expand(6), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("case", [0, 1])
def test_training_step(recorded, case):
    """From logits: the loss and its gradient with respect to them, float32."""
    targets = recorded["step/gt_BL"].repeat(2, 1)[..., None]

    def energies(logits):
        return -logits.log_softmax(-1).gather(-1, targets).sum((1, 2)).view(2, -1).T

    logits = recorded["step/policy_logits"].clone().requires_grad_()
    objective = make(**recorded["config"]["step_cases"][case])
    loss = objective(energies(logits), energies(recorded["step/ref_logits"])).loss_N.mean()
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, recorded["step/loss"][case], rtol=0, atol=2e-6)
    torch.testing.assert_close(grad, recorded[f"step/{case}/grad_policy_logits"], rtol=0, atol=2e-6)
