"""A stand-in for NVIDIA's EDM2 training code, from its published interface: network call, loop, checkpoints.

Where newer versions of torch stop their loop there are two: `InfiniteSampler` and `Run.load` as theirs are
(`edited=False`), and with the edits that docs/edm2-code.md names.

What matters here of the network: the call net(x, sigma, labels, return_logvar=True), weights overwritten by
their normalised selves in every forward in training mode, half precision inside if asked for.

As a program, under torchrun, `edm2_loop.py OUTDIR ROUNDS LOSS...` takes three steps with each loss and writes
what every rank has then.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mclr_fast.integrations.nvlabs_edm2 import CCALoss, CCDPOLoss, MCLRLoss

NUM_CLASSES, SHAPE, BATCH = 4, (1, 8, 8), 12
NOISE = dict(P_mean=-0.4, P_std=1.0)


def normalize(x):
    norm = torch.linalg.vector_norm(x, dim=list(range(1, x.ndim)), keepdim=True, dtype=torch.float32)
    return x / (1e-4 + norm / math.sqrt(x[0].numel())).to(x.dtype)


class MPConv(nn.Module):
    def __init__(self, in_channels, out_channels, *kernel):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))

    def forward(self, x, gain=1):
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight))
        w = (normalize(self.weight) * (gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        return x @ w.t() if w.ndim == 2 else nn.functional.conv2d(x, w, padding=w.shape[-1] // 2)


class Net(nn.Module):
    """A small denoiser D(x; sigma, c) with their preconditioning, called as theirs."""

    def __init__(self, dtype=torch.float32, width=8):
        super().__init__()
        self.dtype, self.forwards = dtype, []
        self.register_buffer("freqs", 2 * math.pi * torch.randn(width))
        self.conv_in = MPConv(SHAPE[0] + 1, width, 3, 3)
        self.emb = MPConv(width + NUM_CLASSES, width)
        self.conv_out = MPConv(width, SHAPE[0], 3, 3)
        self.gain = nn.Parameter(torch.ones([]))
        self.logvar_linear = MPConv(width, 1)

    def forward(self, x, sigma, class_labels=None, return_logvar=False):
        self.forwards.append(len(x))
        x, sigma = x.float(), sigma.float().reshape(-1, 1, 1, 1)
        labels = class_labels.float().reshape(-1, NUM_CLASSES)
        total = sigma**2 + 0.25
        features = (sigma.flatten()[:, None].log() / 4 * self.freqs.float()).cos() * math.sqrt(2)
        emb = self.emb(torch.cat([features, labels * math.sqrt(NUM_CLASSES)], dim=1))
        h = torch.cat([x / total.sqrt(), torch.ones_like(x[:, :1])], dim=1).to(self.dtype)
        h = nn.functional.silu(self.conv_in(h) * (1 + emb[:, :, None, None]).to(self.dtype))
        out = self.conv_out(h, self.gain).float()
        denoised = 0.25 / total * x + sigma * 0.5 / total.sqrt() * out
        if not return_logvar:
            return denoised
        return denoised, self.logvar_linear(features).reshape(-1, 1, 1, 1)


def make_net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(**kwargs).train()


def minibatch(position, size=BATCH):
    """Images and one-hot labels of a position in the data; every class is there."""
    generator = torch.Generator().manual_seed(position)
    classes = torch.arange(size) % NUM_CLASSES
    images = torch.randn(size, *SHAPE, generator=generator) * 0.5 + classes.view(-1, 1, 1, 1) / 4
    return images, nn.functional.one_hot(classes, NUM_CLASSES).float()


class Images(torch.utils.data.Dataset):
    """So many images with one-hot labels, for a loader."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        images, labels = minibatch(index, NUM_CLASSES)
        return images[index % NUM_CLASSES], labels[index % NUM_CLASSES]


class InfiniteSampler(torch.utils.data.Sampler):
    """An order of the data set without an end, from a place on."""

    def __init__(self, dataset, start_idx=0, seed=0, edited=True):
        if edited:
            super().__init__()
        else:
            super().__init__(dataset)
        self.size, self.place, self.seed = len(dataset), start_idx, seed

    def __iter__(self):
        while True:
            epoch, place = divmod(self.place, self.size)
            yield int(np.random.default_rng((self.seed, epoch)).permutation(self.size)[place])
            self.place += 1


def learning_rate(images_seen):
    """A number of numpy's, as their schedule gives."""
    return 1e-2 / np.sqrt(1 + images_seen / 1000)


class Run:
    """Their loop's state, and what one iteration does with it."""

    def __init__(self, net, loss_fn, rounds=1, edited=None):
        """edited: data from a loader and the learning rate from a schedule, as theirs; None: neither."""
        self.rank, self.num_ranks, self.net = 0, 1, net
        if torch.distributed.is_initialized():
            self.rank, self.num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
            self.net = DistributedDataParallel(net)
        self.loss_fn, self.rounds, self.edited, self.loader = loss_fn, rounds, edited, None
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.9, 0.99))
        self.state = {"cur_nimg": 0}
        self.checkpointed = dict(state=self.state, net=self.net, loss_fn=loss_fn, optimizer=self.optimizer)

    def step(self):
        """One iteration of accumulation rounds -> the loss of every image of this rank.

        Data and seed depend on the round among those of all ranks, so that ranks may replace rounds.
        """
        self._open_loader()
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for round_index in range(self.rounds):
            part = self.rank * self.rounds + round_index
            torch.manual_seed(hash((part, self.state["cur_nimg"])) % (1 << 31))
            images, labels = self._minibatch(part)
            last = round_index == self.rounds - 1
            if isinstance(self.net, DistributedDataParallel):
                self.net.require_backward_grad_sync = last
            loss = self.loss_fn(net=self.net, images=images, labels=labels)
            loss.sum().mul(1 / (BATCH * self.rounds)).backward()
            losses += loss.tolist()
        for parameter in self.net.parameters():
            torch.nan_to_num(parameter.grad, nan=0, posinf=0, neginf=0, out=parameter.grad)
        if self.edited is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.state["cur_nimg"])
        self.optimizer.step()
        self.state["cur_nimg"] += BATCH * self.rounds * self.num_ranks
        return losses

    def _open_loader(self):
        """From the images seen on; a loader draws of torch's stream when it begins, so before a step does."""
        if self.edited is not None and self.loader is None:
            images = Images()
            sampler = InfiniteSampler(images, self.state["cur_nimg"], edited=self.edited)
            self.loader = iter(torch.utils.data.DataLoader(images, BATCH, sampler=sampler))

    def _minibatch(self, part):
        return minibatch(self.state["cur_nimg"] + part) if self.loader is None else next(self.loader)

    def save(self, path):
        torch.save({name: _state_of(obj) for name, obj in self.checkpointed.items()}, path)

    def load(self, path, through="__setstate__"):
        """Restore; through="__dict__": by clearing and filling the attributes, as for any plain object."""
        said = {"weights_only": False} if self.edited else {}
        data = torch.load(path, map_location="cpu", **said)
        for name, obj in self.checkpointed.items():
            if isinstance(obj, dict):
                obj.clear()
                obj.update(data[name])
            elif isinstance(obj, DistributedDataParallel):
                obj.module.load_state_dict(data[name])
            elif hasattr(obj, "load_state_dict"):
                obj.load_state_dict(data[name])
            elif through == "__setstate__":
                obj.__setstate__(data[name])
            else:
                obj.__dict__.clear()
                obj.__dict__.update(data[name])


def _state_of(obj):
    if isinstance(obj, dict):
        return obj
    if isinstance(obj, DistributedDataParallel):
        return obj.module.state_dict()
    return obj.state_dict() if hasattr(obj, "state_dict") else obj.__getstate__()


LOSSES = {
    "mclr": lambda: MCLRLoss(**NOISE),
    "ccdpo": lambda: CCDPOLoss(0.1, **NOISE),
    "cca": lambda: CCALoss(0.1, 2.0, **NOISE, pairing="labels"),
}


def main(outdir, rounds, *losses):
    torch.distributed.init_process_group("gloo")
    results = {}
    for loss in losses:
        run = Run(make_net(), LOSSES[loss](), int(rounds))
        results[loss] = [run.step() for _ in range(3)], run.net.module.state_dict()
    torch.save(results, Path(outdir) / f"rank{run.rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
