"""What does not fit the losses for VAR's and CCA's trainers is refused in one line."""

import re

import pytest
import torch
from torch import nn
from var_loop import BATCH, CLASSES, LENGTH, make_net, minibatch, write_tokens

from mclr_fast.integrations.var import CCALoss, CCDPOLoss, DDOLoss, MCLRLoss


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
