"""TensorBoard and Weights & Biases: by request, on rank 0, beside log.jsonl."""

from __future__ import annotations

import importlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mclr_fast.config import RunConfig

from .errors import RunError, one_line
from .files import write_json

if TYPE_CHECKING:
    import numpy as np

SAMPLES = "samples"  # what the pictures are called


class Tracker(Protocol):
    """Something that draws a run's numbers. An arm's images seen never go back, but for `rewind`."""

    def rewind(self, arm: str, images_seen: int) -> None:
        """The arm goes on from here: what it logged past this comes again."""
        ...

    def log(self, arm: str, images_seen: int, values: dict[str, float]) -> None:
        """Numbers of a training step."""
        ...

    def evaluated(
        self, arm: str, images_seen: int, values: dict[str, float], picture: np.ndarray | None = None
    ) -> None:
        """Numbers of an evaluation, and a picture of samples, uint8 [H,W,C].

        A resumed run gives those again that it has kept.
        """
        ...

    def close(self, failed: bool) -> None:
        """The run is over, or this process's part of it."""
        ...


class TensorBoard:
    """One TensorBoard run an arm, under `folder`, so that arms share their charts."""

    def __init__(self, folder: Path):
        """folder: made when something is logged."""
        self.make = _summary_writer()
        self.folder = folder
        self.writers: dict[str, Any] = {}

    def _writer(self, arm: str, images_seen: int = 0) -> Any:
        if arm not in self.writers:  # what an earlier process wrote past images_seen is hidden
            folder = str(self.folder / arm)
            self.writers[arm] = self.make(log_dir=folder, purge_step=images_seen + 1)
        return self.writers[arm]

    def rewind(self, arm: str, images_seen: int) -> None:
        """As `Tracker.rewind`."""
        self._writer(arm, images_seen)

    def log(self, arm: str, images_seen: int, values: dict[str, float]) -> None:
        """As `Tracker.log`."""
        for name, value in values.items():
            self._writer(arm).add_scalar(name, value, images_seen)

    def evaluated(
        self, arm: str, images_seen: int, values: dict[str, float], picture: np.ndarray | None = None
    ) -> None:
        """As `Tracker.evaluated`."""
        self.log(arm, images_seen, values)
        if picture is not None:
            self._writer(arm).add_image(SAMPLES, picture, images_seen, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """As `Tracker.close`."""
        for writer in self.writers.values():
            writer.close()


class WeightsAndBiases:
    """One W&B run for all of a run's arms and processes; its id is in `outdir`/wandb.json.

    W&B takes steps in order only, and each once. A step is the images seen, counted on from arm to arm; an
    evaluation is one step after the training step that it follows. What a resumed run logs again is the same
    and not sent again.
    """

    def __init__(self, project: str, outdir: Path, group: str, config: dict[str, Any], lines: list[dict]):
        """lines: those of log.jsonl before this process. RunError when W&B cannot begin."""
        init = _wandb_init()
        self.starts: dict[str, int] = {}
        self.end = 0
        for line in lines:
            self._step(line["arm"], line["images_seen"])
        id_file, sent = outdir / "wandb.json", -1
        if id_file.exists():
            run_id, sent = json.loads(id_file.read_text())["id"], self.end
        else:
            run_id = secrets.token_hex(4)
            write_json(id_file, {"id": run_id, "project": project})
        try:
            self.run = init(
                project=project, id=run_id, resume="allow", dir=str(outdir), name=outdir.name, group=group,
                config=config, allow_val_change=True,
            )  # fmt: skip
        except Exception as error:  # no account, no network, no such project
            raise RunError(
                f"--wandb {project}: {one_line(error)}. Log in with `wandb login`, or set WANDB_MODE=offline."
            ) from error
        # A run that it knows says what has arrived; offline it knows none.
        self.sent = self.run.starting_step - 1 if self.run.starting_step else sent
        self.known: set[str] = set()

    def _step(self, arm: str, images_seen: int) -> int:
        step = self.starts.setdefault(arm, self.end) + images_seen
        self.end = max(self.end, step)
        return step

    def _send(self, arm: str, images_seen: int, values: dict[str, Any], step: int) -> None:
        if step <= self.sent:
            return
        if arm not in self.known:
            self.run.define_metric(f"{arm}/*", step_metric=f"{arm}/images_seen")
            self.known.add(arm)
        values = {"images_seen": images_seen, **values}
        self.run.log({f"{arm}/{name}": value for name, value in values.items()}, step=step)
        self.sent = step

    def rewind(self, arm: str, images_seen: int) -> None:
        """As `Tracker.rewind`; nothing to do."""

    def log(self, arm: str, images_seen: int, values: dict[str, float]) -> None:
        """As `Tracker.log`."""
        self._send(arm, images_seen, values, self._step(arm, images_seen))

    def evaluated(
        self, arm: str, images_seen: int, values: dict[str, float], picture: np.ndarray | None = None
    ) -> None:
        """As `Tracker.evaluated`."""
        shown = {} if picture is None else {SAMPLES: importlib.import_module("wandb").Image(picture)}
        self._send(arm, images_seen, values | shown, self._step(arm, images_seen) + 1)

    def close(self, failed: bool) -> None:
        """As `Tracker.close`."""
        self.run.finish(exit_code=int(failed))


def check_trackers(config: RunConfig) -> None:
    """RunError when a tracker is asked for and not installed."""
    if config.tensorboard:
        _summary_writer()
    if config.wandb is not None:
        _wandb_init()


def open_trackers(
    config: RunConfig, outdir: Path, options: dict[str, Any], lines: list[dict]
) -> list[Tracker]:
    """Those asked for. options: what W&B shows of the run; lines: of its log so far."""
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(outdir / "tensorboard"))
    if config.wandb is not None:
        trackers.append(WeightsAndBiases(config.wandb, outdir, config.recipe, options, lines))
    return trackers


def _summary_writer() -> Callable[..., Any]:
    return _found("torch.utils.tensorboard", "SummaryWriter", "--tensorboard", "tensorboard")


def _wandb_init() -> Callable[..., Any]:
    return _found("wandb", "init", "--wandb", "wandb")


def _found(module: str, name: str, option: str, package: str) -> Callable[..., Any]:
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # also of one that does not fit what it imports, with whatever that raises
        # A folder wandb/ of runs imports too, and has no init.
        raise RunError(
            f"{option} needs the package {package} ({one_line(error)}): pip install 'mclr_fast[logs]', or "
            "leave it out."
        ) from None
