"""Fashion-MNIST at 32x32, from nothing to a fine-tuned model: on a GPU, and smaller on two cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mclr_fast.config import EvalConfig, RunConfig

from .mnist16 import mnist16, mnist16_base

PROTOCOL = "classifier"
# EDM2's for pixels: a network with a learned uncertainty takes a wide range, and images of 32 pixels show
# structure at higher noise than EDM's law for CIFAR-10 (-1.2, 1.2) dwells on.
NOISE = dict(P_mean=-0.8, P_std=1.6)
# And the contrast's: noise from which more than one class may have come, nearly all of it above sigma = 3.
# Below, the class is plain, and pushing wrong labels away has no optimum: it adds noise (docs/fashion32.md).
CONTRAST = dict(P_mean=2.3, P_std=0.6, dsm_weight=2.0)


@dataclass(frozen=True)
class Size:
    """A network, and how much of everything its machine can afford.

    Attributes:
        name: its recipes' names begin with; net: constructor arguments of EDM2's network.
        base, tuning: of the training of the base, and of fine-tuning.
        judged: samples of an evaluation; final: of a final row, fresh ones.
        sampler: its steps, and where the noise levels end.
        init: the base that ships, where one does; note: what a run's user must know.
    """

    name: str
    net: dict[str, Any]
    base: dict[str, Any]
    tuning: dict[str, Any]
    eval_every: int
    judged: int
    final: int
    sampler: dict[str, Any]
    init: str | None = None
    note: str = ""


def _net(model_channels: int, channel_mult: list[int], **arguments: Any) -> dict[str, Any]:
    return dict(
        img_resolution=32,
        img_channels=1,
        label_dim=10,
        model_channels=model_channels,
        channel_mult=channel_mult,
        channels_per_head=32,
        **arguments,
    )


GPU = Size(
    name="fashion32",
    net=_net(32, [1, 2, 4], num_blocks=2, attn_resolutions=[8], logvar_channels=64),  # 4.3M parameters
    base=dict(batch_size=256, duration=256 * 40_000, ref_batches=3000, warmup_images=100_000),
    tuning=dict(batch_size=256, duration=256 * 160, log_every=256 * 4),
    eval_every=256 * 20,
    judged=5000,
    final=10_000,
    sampler=dict(num_steps=18),
    note="no grid has been run at this size yet: learning rate, N and K are starting points.",
)
# Attention in the middle block alone, and float32: on a processor so few channels are slower in bfloat16.
SMALL = Size(
    name="fashion32-small",
    net=_net(8, [1, 2, 4, 8], num_blocks=1, attn_resolutions=[], logvar_channels=32),  # 0.7M parameters
    base=dict(
        batch_size=128,
        duration=128 * 15_700,
        ref_batches=1500,
        warmup_images=40_000,
        precision="fp32",
        checkpoint_every=128 * 250,
    ),
    tuning=dict(batch_size=256, duration=256 * 50, log_every=256 * 5, lr=2e-4, precision="fp32"),
    eval_every=256 * 25,
    judged=2000,
    final=5000,
    sampler=dict(num_steps=12, sigma_min=0.02),  # so few steps are wasted on a sigma of less
    init="fashion32-small-base",
)


def fashion32_base(size: Size) -> RunConfig:
    """Train a base on Fashion-MNIST (small: on two cores), from scratch; needs --data.

    Nothing is judged on the way: averages are kept every 100,000 images, and FD over them is measured after.
    """
    run = mnist16_base()
    snapshots = 100_000 // size.base["batch_size"] * size.base["batch_size"]
    return RunConfig(
        recipe=f"{size.name}-base",
        net=size.net,
        protocol=PROTOCOL,
        objective=replace(run.objective, **NOISE),
        train=replace(
            run.train,
            **{"checkpoint_every": snapshots, **size.base},
            ema_stds=(0.1, 0.05),
            ema_snapshot_every=snapshots,
        ),
        eval=replace(_sampled(run, size), eval_every=0),
    )


def fashion32(size: Size) -> RunConfig:
    """Fine-tune that base with MCLR, with a control, curves and a report; needs --data, and on a GPU --init.

    --heldout names the 10,000 images for the row of real ones.
    """
    run = mnist16()
    return replace(
        run,
        recipe=size.name,
        data=None,
        init=size.init,
        net=size.net,
        note=size.note,
        protocol=PROTOCOL,
        objective=replace(run.objective, **CONTRAST),
        train=replace(run.train, **size.tuning),
        eval=replace(
            _sampled(run, size),
            eval_every=size.eval_every,
            num_samples=size.judged,
            final_samples=size.final,
        ),
    )


def fashion32_proof(size: Size) -> RunConfig:
    """Fine-tune that base with three seeds, each judged on fresh samples beside base and control."""
    run = fashion32(size)
    return replace(
        run,
        recipe=f"{size.name}-proof",
        # Fresh samples judge anyway, so no final rows.
        eval=replace(run.eval, control="all", cfg_scales=(), best_cfg_scales=(), dial=(), final_samples=0),
        proof_seeds=(0, 1, 2),
        proof_samples=size.final,
    )


def _sampled(run: RunConfig, size: Size) -> EvalConfig:
    """The run's evaluation with EDM2's noise levels and the size's sampler."""
    return replace(run.eval, **size.sampler, sigma_max=80.0)
