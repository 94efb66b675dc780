"""A stand-in for VAR's and CCA's training code, from their published interface: network call, loop, state.

What matters here of the network: the call net(labels, x_BLCv_wo_first_l) -> logits, labels dropped inside it
in every mode, whole branches dropped in training, and attributes that are no part of its weights.
"""

import io
import json
import zipfile

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mclr_fast.integrations.var import CCALoss, CCDPOLoss, MCLRLoss
from mclr_fast.models.var import VAR

NUM_CLASSES, BATCH = 4, 8
NET = dict(
    vocab_size=16, z_channels=4, num_classes=NUM_CLASSES, depth=2, embed_dim=32, num_heads=2,
    patch_nums=(1, 2),
)  # fmt: skip
LENGTH = 5
VQVAE_NET = dict(vocab_size=16, z_channels=4, ch=32, v_patch_nums=(1, 2))
CLASSES = [0, 1, 1, 2, 3, 2, 3, 3]  # of DDO's samples
LOSSES = {
    "mclr": lambda **more: MCLRLoss(**more),
    "mclr-two": lambda **more: MCLRLoss(num_negatives=2, **more),
    "ccdpo": lambda **more: CCDPOLoss(0.1, **more),
    "cca": lambda **more: CCALoss(0.1, 2.0, **more),
    "cca-dropout": lambda **more: CCALoss(0.1, 2.0, uncond_ratio=0.3, pairing="rolled", **more),
}


class Net(VAR):
    """Their network's call, on this package's layers."""

    def __init__(self, **overrides):
        super().__init__(**NET | {"drop_path_rate": 0.0, "cond_drop_rate": 0.5} | overrides)
        self.rng = torch.Generator()
        self.labels_seen = []

    def forward(self, label_B, x_BLCv_wo_first_l):
        drop = torch.rand(len(label_B), device=label_B.device) < self.cond_drop_rate
        label_B = torch.where(drop, self.num_classes, label_B)
        self.labels_seen.append(label_B)
        return super().forward(label_B, x_BLCv_wo_first_l)


def make_net(seed=0, **overrides):
    """None of whose weights is 0, in training mode."""
    torch.manual_seed(seed)
    net = Net(**overrides)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net.train()


def minibatch(position, size=BATCH):
    """Labels, inputs and tokens of a position in the data; a class's tokens are around 4 times its number."""
    generator = torch.Generator().manual_seed(position)
    labels = torch.arange(size) % NUM_CLASSES
    tokens = 4 * labels[:, None] + torch.randint(4, (size, LENGTH), generator=generator)
    codebook = torch.randn(NET["vocab_size"], NET["z_channels"], generator=torch.Generator().manual_seed(0))
    return labels, codebook[tokens[:, :-1]], tokens


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


class Trainer:
    """Their loop's step and state: {config, var_wo_ddp, var_opt}, each restored by its own method."""

    def __init__(self, net, loss_fn, accumulation=1):
        self.var_wo_ddp = self.var = net
        if torch.distributed.is_initialized():
            self.var = DistributedDataParallel(net)
        self.loss_fn, self.accumulation, self.iter = loss_fn, accumulation, 0
        self.var_opt = torch.optim.AdamW(net.parameters(), lr=1e-2, betas=(0.9, 0.95))

    def step(self):
        """One step -> the losses of its images."""
        self.var_opt.zero_grad(set_to_none=True)
        losses = []
        for part in range(self.accumulation):
            torch.manual_seed(100 * self.iter + part)
            label_B, x_BLCv_wo_first_l, gt_BL = minibatch(self.accumulation * self.iter + part)
            self.var.require_backward_grad_sync = part == self.accumulation - 1
            loss = self.loss_fn(self.var, label_B, x_BLCv_wo_first_l, gt_BL)
            loss.mean().div(self.accumulation).backward()
            losses += loss.tolist()
        nn.utils.clip_grad_norm_(self.var_wo_ddp.parameters(), 2.0)
        self.var_opt.step()
        self.iter += 1
        return losses

    def save(self, path):
        parts = {name: getattr(self, name).state_dict() for name in ("var_wo_ddp", "var_opt", "loss_fn")}
        torch.save({"iter": self.iter, "trainer": parts}, path)

    def load(self, path):
        saved = torch.load(path, map_location="cpu")
        self.iter = saved["iter"]
        for name, state in saved["trainer"].items():
            getattr(self, name).load_state_dict(state)
