"""The training steps that are compared: the package's own, and the settings of each row."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from baselines.plain_net import PlainNet
from baselines.training import ImageData
from torch import nn

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import PRESETS, Precond
from mclr_fast.recipes.mnist16 import NET as EMBEDDED_NET
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training.trainer import Trainer

LARGE_NET = dict(
    img_resolution=32, img_channels=3, label_dim=10, model_channels=64, channel_mult=(1, 2, 2), num_blocks=2,
    attn_resolutions=(16, 8),
)  # fmt: skip
EMBEDDED_NET_32 = EMBEDDED_NET | dict(model_channels=32, channels_per_head=32)


@dataclass(frozen=True)
class Setting:
    """What a step trains: network, minibatch, dtype.

    no_compile, no_naive: why a baseline is left out; autotune: torch.compile is tried with all that it has.
    """

    row: str
    net: dict[str, Any]
    num_images: int
    num_negatives: int
    dtype: torch.dtype
    no_compile: str = ""
    no_naive: str = ""
    device: str = "cpu"
    rounds: int = 5
    autotune: bool = False

    def shrunk(self, device: str | None = None) -> Setting:
        """The same in seconds, to see that everything runs; perhaps on another device."""
        net = self.net | dict(
            img_resolution=8, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,),
            channels_per_head=8,
        )  # fmt: skip
        return replace(self, net=net, num_images=4, device=device or self.device)

    @property
    def num_evaluations(self) -> int:
        return self.num_images * (1 + self.num_negatives)


SETTINGS = [
    Setting("step-bf16-k3", LARGE_NET, 8, 3, torch.bfloat16),
    Setting("step-fp32-k3", LARGE_NET, 8, 3, torch.float32),
    Setting(
        "step-bf16-k7", LARGE_NET, 8, 7, torch.bfloat16, "another 2 minutes of compiling; see K=3", rounds=3
    ),
    Setting("step-embedded", EMBEDDED_NET_32, 32, 3, torch.bfloat16, "another minute of compiling; see K=3"),
    Setting("step-default-fp32", EMBEDDED_NET, 32, 3, torch.float32, rounds=15),  # the recipe mnist16's own
    Setting("step-default-bf16", EMBEDDED_NET, 32, 3, torch.bfloat16, rounds=15),
]


PRESET_SHAPE = dict(channel_mult=(1, 2, 3, 4), num_blocks=3, attn_resolutions=(16, 8))
AT_16 = "see step-gpu-s64-k3"
ELSEWHERE = f"another 2 minutes of compiling; {AT_16}"
GPU_SETTINGS = [
    Setting(
        row,
        PRESET_SHAPE | PRESETS[preset].net,
        num_images,
        num_negatives,
        torch.bfloat16,
        *reasons,
        device="cuda",
        autotune=row == "step-gpu-s64-k3",
    )
    for row, preset, num_images, num_negatives, *reasons in [
        ("step-gpu-s64-k3", "edm2-img64-s", 16, 3),
        ("step-gpu-s64-k3-n4", "edm2-img64-s", 4, 3, "", AT_16),
        ("step-gpu-s64-k3-n64", "edm2-img64-s", 64, 3, "", "384 float32 evaluations were not tried"),
        ("step-gpu-s64-k7", "edm2-img64-s", 8, 7, ELSEWHERE),
        ("step-gpu-l512-k3", "edm2-img512-l", 8, 3, ELSEWHERE),
    ]
]


def image_data(net: dict[str, Any]) -> ImageData:
    return ImageData(net["label_dim"], (net["img_channels"], net["img_resolution"], net["img_resolution"]))


def build_nets(setting: Setting) -> tuple[Precond, PlainNet]:
    """On its device: the package's network and the plain one (float32), with the same parameters."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        return _build_nets(setting)


def _build_nets(setting: Setting) -> tuple[Precond, PlainNet]:
    net = Precond(**setting.net, dtype=setting.dtype)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):  # from zero, neither output nor label would matter
                parameter.fill_(1.0)
    plain = PlainNet(**setting.net)
    plain.load_state_dict(net.state_dict(), strict=True)
    return net, plain


class TrainerStep:
    """One real step of the package's trainer: data, forward, backward, optimizer, EMA, normalisation."""

    def __init__(
        self,
        setting: Setting,
        net: nn.Module,
        folder: Path,
        micro_batch: int = 0,
        cuda_graphs: Literal["on", "off"] = "on",
        *,
        ranks: Ranks | None = None,
        log: Path | None = None,
        **train: Any,
    ):
        """ranks: None, one process; log: a file for its lines; train: further fields of TrainConfig."""
        config = RunConfig(
            recipe="benchmark",
            objective=ObjectiveConfig(num_negatives=setting.num_negatives, P_mean=-0.5, P_std=1.2),
            train=TrainConfig(
                duration=1 << 40,
                batch_size=setting.num_images,
                micro_batch=micro_batch,
                precision="bf16" if setting.dtype == torch.bfloat16 else "fp32",
                **{"log_every": 1 << 40} | train,
            ),
            eval=EvalConfig(cuda_graphs=cuda_graphs),
        )
        never = SimpleNamespace(requested=False)
        self.trainer = Trainer(
            "mclr",
            config,
            Model.of(describe(setting.net)),
            net,
            image_data(setting.net),
            ranks or Ranks(setting.device),
            RunLog(log),
            folder / "state",
            setting.row,
            never,
        )
        # What it is compared with lies in the same memory; its graphs are not to be made again for that.
        self.trainer.placement.make_room = lambda: None
        self.num_images = setting.num_images

    def __call__(self, num_steps: int = 1) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            self.trainer.train_until(self.trainer.images_seen + num_steps * self.num_images)
