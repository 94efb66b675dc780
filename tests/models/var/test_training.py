"""A VAR through the trainer as it is: cut into micro-batches, resumed, on two ranks, sharded."""

from dataclasses import replace

import pytest
import tiny_var as program
import torch
from run_log import assert_same_losses, column

from mclr_fast.experiments.estimates.cost import cost_of
from mclr_fast.runtime.errors import Interrupted
from mclr_fast.training.memory import StepMemory

OBJECTIVES = ("mclr", "cca", "ccdpo", "denoising")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One rank's runs, a step at once."""
    outdir = tmp_path_factory.mktemp("whole")
    program.write_vqvae(outdir / "vqvae")
    for objective in OBJECTIVES:
        trained(outdir, objective)
    return outdir


def trained(outdir, objective, **options):
    trainer = program.tiny_trainer(outdir, objective, **options)
    trainer.train_until(trainer.config.duration)
    return trainer


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_same_losses_in_parts_and_resumed(whole, tmp_path, objective):
    (tmp_path / "vqvae").symlink_to(whole / "vqvae")
    micro_batch = 8 if objective == "ccdpo" else 6  # whole rows of four; or cut by columns
    with pytest.raises(Interrupted):
        trained(tmp_path, objective, micro_batch=micro_batch, stop_after=2)
    trained(tmp_path, objective, micro_batch=micro_batch)
    assert_same_losses(tmp_path / objective, whole / objective)
    assert len(column(tmp_path / objective, "loss")) == program.STEPS


def test_left_out_branches_are_keyed_by_the_row(whole, tmp_path):
    """With --dropout: the same losses in parts, and others than without."""
    for name, micro_batch in (("one", 0), ("parts", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vqvae").symlink_to(whole / "vqvae")
        trained(tmp_path / name, "cca", micro_batch=micro_batch, dropout=0.5)
    assert_same_losses(tmp_path / "parts" / "cca", tmp_path / "one" / "cca")
    with pytest.raises(AssertionError):
        assert_same_losses(tmp_path / "one" / "cca", whole / "cca")


@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_same_losses_on_two_ranks(whole, tmp_path, on_two_ranks, sharding):
    (tmp_path / "vqvae").symlink_to(whole / "vqvae")
    on_two_ranks(program.__file__, tmp_path, sharding, 8, *OBJECTIVES)
    for objective in OBJECTIVES:
        assert_same_losses(tmp_path / objective, whole / objective)


def test_the_first_loss_is_the_formula(whole):
    """MCLR of exact likelihoods, every evaluation by itself, in float64."""
    trainer = program.tiny_trainer(whole, "mclr")
    rows, net = trainer.source.draw(0), trainer.net
    quantizer = net.tokenizer.quantizer(torch.device("cpu"))
    inputs = quantizer.teacher_inputs(rows.x)
    with torch.no_grad():
        nll = torch.stack([-net.log_prob(rows.x, labels, inputs) for labels in rows.labels.T], dim=1)
    expected = (nll.double()[:, 0] - nll.double()[:, 1:].mean(dim=1)).mean()
    assert trainer.step(0).loss == pytest.approx(expected.item(), abs=1e-4)


def test_a_step_s_memory_is_counted_without_the_vqvae():
    """On the meta device, where no file is read; what computes are the parameters themselves."""
    model = program.tiny_model("/nowhere")
    memory = StepMemory(program.tiny_config("cca", 12, 1), model).of(1, 12)
    size = sum(p.numel() for p in model.build().parameters())
    assert memory.parameters == memory.reference == 4 * size and memory.effective == 0
    assert memory.activations > 0


def counted(num_images, objective="cca", micro_batch=0, duration=64, **options):
    """The count of a run over data of so many images; K = 3."""
    config = program.tiny_config(objective, micro_batch, 1)
    options = replace(config.objective, label_dropout=0.0, **options)
    config = replace(config, train=replace(config.train, duration=duration), objective=options)
    return StepMemory(config, program.tiny_model("/nowhere"), num_images)


def test_kept_energies_of_the_reference_are_counted_once():
    """A call less of the reference an image seen, and a call an image of the data, of every round."""
    full, kept, unknown = counted(64), counted(40), counted(None)
    call = full.flops[1]
    assert not full.keeps_own_energies and kept.keeps_own_energies and full.flops == unknown.flops
    assert full.flops[0] - kept.flops[0] == pytest.approx(call, rel=0.02)  # beside what columns share
    assert (full.num_made, unknown.num_made, kept.num_made) == (0, 0, 40)
    assert counted(10, refresh_every=16).num_made == 4 * 10
    for others in (counted(40, "mclr"), counted(40, "ccdpo", refresh_every=32)):
        assert others.num_made == 0
    hours = [cost_of(step.config, step).training for step in (full, kept)]
    made, seen = 40 * call, 64 * (full.flops[0] - kept.flops[0])
    assert hours[0] - hours[1] == pytest.approx((seen - made) / (full.config.gpu_tflops * 1e12 * 3600))


def test_what_it_takes_to_make_kept_energies(monkeypatch):
    """As many images at once as a micro-batch has evaluations, one column each, and no gradients."""
    kept, unknown = counted(40, micro_batch=16), counted(None, micro_batch=16)
    assert kept.of(1, 16).activations <= unknown.of(1, 16).activations
    assert 4 * 16 * 14 * 32 < kept.making_bytes(1) < kept.of(1, 16).activations
    shares = [counted(40).making_bytes(num_gpus) for num_gpus in (1, 2, 4)]
    assert shares[0] > 1.5 * shares[1] > 2 * shares[2]
    monkeypatch.setattr(StepMemory, "making_bytes", lambda step, num_gpus: 10**9)
    assert kept.of(1, 16).activations == 10**9 - kept.of(1, 16).gradients
    assert unknown.of(1, 16).activations < 10**9
