"""A run's folder belongs to one run: the options that make it what it is, their hash, and its claim."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from mclr_fast.config import RunConfig
from mclr_fast.data.sources.names import is_foreign
from mclr_fast.runtime import formats
from mclr_fast.runtime.disk import free_bytes, mend
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import write_json

# Options that may differ between the calls that make one run.
FREE = {
    "outdir",
    "device",
    "tensorboard",
    "wandb",
    "dry_run",
    "loader",
    "loader_threads",
    "gpu_memory_gib",
    "gpu_tflops",
    "table_minutes",
    "train.sharding",
    "train.micro_batch",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every",
    "train.ema_snapshot_every",
    "eval.sample_batch",
    "eval.inception_weights",
    "eval.dinov2_weights",
    "eval.download",
    "eval.recompute_cfg",
    "eval.best_cfg_scales",
    "eval.dial",
    "eval.final_samples",
}
MIN_FREE_BYTES = 64 * 2**20


def flat(config: RunConfig) -> dict[str, Any]:
    """The options that make a run what it is, "group.name" -> JSON value."""
    values: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        group = {f"{name}.{k}": v for k, v in value.items()} if name in GROUPS else {name: value}
        values |= group
    return json.loads(json.dumps({k: v for k, v in values.items() if k not in FREE}, default=str))


GROUPS = ("objective", "train", "eval")


def defaults() -> dict[str, Any]:
    """What an option that a file lacks is: it is younger than the file."""
    return flat(RunConfig(recipe=""))


def run_hash(config: RunConfig) -> str:
    """What a run is, in 16 characters; its states carry it.

    Options that format 1 had not are left out at their defaults: so a run that it could describe has the
    hash that it had, and a new option refuses no older state.
    """
    usual = defaults()
    told = {
        name: value
        for name, value in flat(config).items()
        if name in formats.FORMAT_1_OPTIONS or value != usual[name]
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


LOG = re.compile(r".+\.(log|out|err)|(.*[-_.])?(log|stdout|stderr|out|err)([-_]?\d+)?(\.txt)?", re.IGNORECASE)


def _is_nobodys(entry: Path) -> bool:
    """Whether a folder of such entries counts as empty: what systems leave, or this command's own log.

    A name is enough for a log: behind `| tee` the process does not know who writes down what it says.
    """
    if is_foreign(entry.name) or entry.name.endswith(".tmp"):
        return True
    if entry.is_file() and LOG.fullmatch(entry.name):
        return True
    with contextlib.suppress(OSError):  # no /proc here, or a stream that is closed
        streams = [Path(os.readlink(f"/proc/self/fd/{number}")) for number in (1, 2)]
        return any(entry.resolve() in (stream, *stream.parents) for stream in streams)
    return False


def claim_outdir(outdir: Path, config: RunConfig) -> None:
    """Make outdir this run's, or see that it already is. RunError, one line, when it cannot be.

    An option that its config.json lacks has its default there. The file stays as the first call wrote it.
    """
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        free = free_bytes(outdir)
        # Looked at before config.json, the first file of all: a process started together with this one
        # may be writing it.
        occupied = not all(map(_is_nobodys, outdir.iterdir()))
    except OSError as error:
        raise RunError(f"cannot use --outdir {outdir}: {error.strerror}. {mend(error)}.") from None
    if free is not None and free < MIN_FREE_BYTES:
        raise RunError(
            f"--outdir {outdir} is on a disk with {free / 2**20:.0f} MiB free; a run needs at least "
            f"{MIN_FREE_BYTES >> 20}. Free some space or choose another."
        )
    path, wanted = outdir / "config.json", flat(config)
    if not path.exists():
        if occupied:
            raise RunError(
                f"--outdir {outdir} is not empty and holds no run of ours. Choose another, or empty it."
            )
        write_json(path, {"format": formats.CONFIG_FORMAT, **wanted})
        return
    try:
        content = json.loads(path.read_text())
        found = {k: v for k, v in (defaults() | formats.config(content, path)).items() if k not in FREE}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}). Choose another --outdir.") from None
    changed = [k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)]
    if changed:
        shown = ", ".join(
            f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} asked" for k in sorted(changed)[:3]
        )
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise RunError(
            f"--outdir {outdir} holds another run's state ({shown}{more}). Choose another --outdir, "
            "or give that run's options to resume it."
        )
