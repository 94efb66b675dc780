"""A contrastive step of VAR's exact likelihoods against the way that its formula reads, in fp32.

Run: pytest benchmarks/bench_var_step.py --benchmark-only
"""

import pytest
import torch
from interleave import interleave, record_times

from mclr_fast.models import Model, describe
from mclr_fast.models.rows import Rows
from mclr_fast.models.var import PRESETS, VQVAE
from mclr_fast.runtime.device.precision import choose_dtype

IMAGES, NEGATIVES = 4, 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SMALL = dict(embed_dim=64, num_heads=4, patch_nums=[1, 2, 3], vocab_size=64)


class Step:
    """MCLR of a minibatch, forward and backward."""

    def __init__(self, net, tokens, labels):
        self.net, self.tokens, self.labels = net, tokens, labels
        self.coefficients = torch.tensor([1.0] + [-1 / NEGATIVES] * NEGATIVES).expand_as(labels) / IMAGES

    def __call__(self):
        self.net.zero_grad()
        return self.loss()


class Ours(Step):
    """As the trainer makes it: token embeddings once an image, one batch, no logits stored."""

    def __init__(self, family, *arguments):
        super().__init__(*arguments)
        self.family = family

    def loss(self):
        num_rows, num_columns = self.labels.shape
        places = torch.arange(num_rows), 0, torch.ones(()), torch.arange(num_columns), num_columns
        rows = Rows(self.tokens, self.labels, True, {}, *places)
        energy = self.family.contrast(
            self.net, self.family.inputs(self.net, rows), self.labels, self.coefficients
        )
        return (energy * self.coefficients).sum()


class Reference(Step):
    """Each tuple's two forward passes, as CCA's trainer makes them: logits, log_softmax, gather; eager."""

    def loss(self):
        inputs = self.net.tokenizer.quantizer(torch.device("cpu")).teacher_inputs(self.tokens)
        tokens, x = (each.repeat(NEGATIVES, *[1] * (each.ndim - 1)) for each in (self.tokens, inputs))
        positive = self.labels[:, :1].repeat(NEGATIVES, 1).flatten()
        negative = self.labels[:, 1:].T.flatten()
        nll = [self.nll(labels, x, tokens) for labels in (positive, negative)]
        loss = (nll[0] - nll[1]).sum() / (NEGATIVES * IMAGES)
        loss.backward()
        return loss.detach()

    def nll(self, labels, x, tokens):
        log_p = self.net(labels, x).log_softmax(-1)
        return -log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).sum(1)


@pytest.mark.parametrize("precision", DTYPES)
def test_var_step(benchmark, suite, tmp_path, precision):
    arguments = PRESETS["var-d16"].net | {"depth": 4} | (SMALL if suite.quick else {})
    model = Model.of(describe(arguments, "var"))
    torch.manual_seed(0)
    net, plain = model.build(dtype=DTYPES[precision]), model.build()
    with torch.no_grad():
        for own, other in zip(net.parameters(), plain.parameters(), strict=True):
            own.add_(0.02 * torch.randn_like(own))
            other.copy_(own)
    sizes = {name: arguments[name] for name in ("vocab_size", "z_channels")}
    vqvae = VQVAE(**sizes, ch=32, v_patch_nums=arguments["patch_nums"])
    for each in (net, plain):
        each.tokenizer.quantizer = lambda device: vqvae.quantizer
    tokens = torch.randint(arguments["vocab_size"], (IMAGES, net.length))
    labels = torch.randint(1000, (IMAGES, 1 + NEGATIVES))
    ours, reference = Ours(model.family, net, tokens, labels), Reference(plain, tokens, labels)
    scale = 5e-3 if precision == "bf16" else 1e-5  # of what is added up: -log p of an image
    assert abs(ours() - reference()) < scale * 8.3 * net.length
    info = benchmark.extra_info
    info.update(row="var-step", dtype=str(DTYPES[precision]), machine=suite.machine)
    # Emulated bfloat16 promises nothing.
    info["native"] = precision == "fp32" or choose_dtype("auto", torch.device("cpu")) is torch.bfloat16
    info["evaluations"] = labels.numel()
    times = interleave(benchmark, ours, {"reference": reference}, rounds=suite.rounds(5))
    if times is not None:
        record_times(benchmark, times)
        suite.record(benchmark, {"over_reference": times["reference"].ratios(times["ours"])})
