"""A run's folder belongs to one run: its options, what their files hold, their hash, and its claim."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mclr_fast.config import RunConfig
from mclr_fast.data.sources.names import is_foreign
from mclr_fast.runtime import formats
from mclr_fast.runtime.disk import free_bytes, mend
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.options import option_of

from .fingerprints import LOOKS, Fingerprint, difference, is_known, shown, unseen

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
    "time_steps",
    "table_minutes",
    "train.sharding",
    "train.micro_batch",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.milestone_every",
    "train.log_every",
    "train.ema_snapshot_every",
    "eval.sample_batch",
    "eval.cuda_graphs",
    "eval.inception_weights",
    "eval.dinov2_weights",
    "eval.download",
    "eval.recompute_cfg",
    "eval.best_cfg_scales",
    "eval.dial",
    "eval.final_samples",
}
MIN_FREE_BYTES = 64 * 2**20
DURATION = "train.duration"
IDENTITY = "identity.json"
DEPTH = 3  # folders between a table's and its runs', at most


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


def run_hash(config: RunConfig, began: Mapping[str, Any] | None = None) -> str:
    """What a run is, in 16 characters; its states carry it.

    began: options whose values may be others by now, as `Claim` has them.
    Options that format 1 had not are left out at their defaults: so a run that it could describe has the
    hash that it had, and a new option refuses no older state.
    """
    usual = defaults()
    told = {
        name: value
        for name, value in (flat(config) | dict(began or {})).items()
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


def whole_of(outdir: Path) -> Path:
    """The folder of the table or proof that a run is part of; of a run by itself its own."""
    folders = [outdir, *outdir.absolute().parents[:DEPTH]]
    return next((folder for folder in reversed(folders) if (folder / IDENTITY).exists()), outdir)


def lock_of(outdir: Path) -> Path:
    """The file that says which process makes the run of that folder now."""
    return outdir / "running.lock"


@dataclass(frozen=True)
class Claim:
    """What a run's folder remembers of its beginning.

    Attributes:
        began: the options that may change with the run still the same (how its files are spelled, and
            --duration), as the first call had them; the states' hash is made of these.
        earlier: shorter durations that were asked for before.
    """

    began: dict[str, Any]
    earlier: tuple[int, ...] = ()


def claim_outdir(
    outdir: Path,
    config: RunConfig,
    found: Mapping[str, Fingerprint] | None = None,
    *,
    may_grow: bool = True,
) -> Claim:
    """Make outdir this run's, or see that it already is. RunError, one line, when it cannot be.

    An option that its config.json lacks has its default there. The file stays as the first call wrote it, but
    for a --duration that has grown (may_grow). Files are told by their contents, which identity.json keeps.

    Args: found: the fingerprints of what the options name; without them a path is its spelling.
    """
    occupied = _made(outdir)
    path, wanted = outdir / "config.json", flat(config)
    kept = _kept(outdir, occupied)
    if kept is None:
        write_json(path, {"format": formats.CONFIG_FORMAT, **wanted})
        return _keep(outdir, _Identity.beginning(wanted), found, wanted)
    content, there, identity = kept
    _check_same(outdir, there, wanted, identity, found or {}, may_grow)
    if found and not identity.fingerprints:
        say(
            True,
            f"note: {outdir} is of a version that kept no fingerprints: the data and models that its options "
            "name now are taken for those it began with.",
        )
    claim = _keep(outdir, identity, found, wanted)
    if wanted[DURATION] != there.get(DURATION):
        write_json(path, {**content, DURATION: wanted[DURATION]})
    return claim


def check_outdir(
    outdir: Path,
    config: RunConfig,
    look: Callable[[], Mapping[str, Fingerprint]],
    *,
    may_grow: bool = True,
) -> None:
    """RunError where `claim_outdir` would refuse, as far as can be seen: nothing is made.

    look: gives the fingerprints, which take long; asked for where there is a run to compare with.
    """
    place = nearest_folder(outdir)
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise RunError(f"cannot use --outdir {outdir}: {place} is no folder that can be written to.")
    occupied = _occupied(outdir, place)
    kept = _kept(outdir, occupied) if outdir.exists() else None
    if kept is not None:
        _, there, identity = kept
        _check_same(outdir, there, flat(config), identity, look(), may_grow)


def nearest_folder(path: Path) -> Path:
    """The path, or what it would be made in: the nearest above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _kept(outdir: Path, occupied: bool) -> tuple[dict[str, Any], dict[str, Any], _Identity] | None:
    """config.json, the options that it stands for, and the identity of the run there; None without one."""
    path = outdir / "config.json"
    if not path.exists():
        if occupied:
            raise RunError(
                f"--outdir {outdir} is not empty and holds no run of ours. Choose another, or empty it."
            )
        return None
    try:
        content = json.loads(path.read_text())
        there = {k: v for k, v in (defaults() | formats.config(content, path)).items() if k not in FREE}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}). Choose another --outdir.") from None
    return content, there, _Identity.read(outdir) or _Identity.beginning(there)


def _made(outdir: Path) -> bool:
    """Make the folder, and see whether anything is in it. RunError where it cannot be a run's."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot use --outdir {outdir}: {error.strerror}. {mend(error)}.") from None
    return _occupied(outdir, outdir)


def _occupied(outdir: Path, place: Path) -> bool:
    """Whether anything is in the folder, which lies or will lie in `place`. RunError without room there."""
    try:
        free = free_bytes(place)
        # Looked at before config.json, the first file of all: a process started together with this one
        # may be writing it.
        occupied = outdir.exists() and not all(map(_is_nobodys, outdir.iterdir()))
    except OSError as error:
        raise RunError(f"cannot use --outdir {outdir}: {error.strerror}. {mend(error)}.") from None
    if free is not None and free < MIN_FREE_BYTES:
        raise RunError(
            f"--outdir {outdir} is on a disk with {free / 2**20:.0f} MiB free; a run needs at least "
            f"{MIN_FREE_BYTES >> 20}. Free some space or choose another."
        )
    return occupied


@dataclass(frozen=True)
class _Identity:
    """The content of identity.json.

    Attributes: began, as `Claim` has it; durations, all that were asked for; fingerprints by option.
    """

    began: dict[str, Any]
    durations: list[int]
    fingerprints: dict[str, Fingerprint]

    @classmethod
    def beginning(cls, options: Mapping[str, Any]) -> _Identity:
        """Of a run with these options that keeps none yet."""
        began = {name: options[name] for name in (*LOOKS, DURATION)}
        return cls(began, [options[DURATION]], {})

    @classmethod
    def read(cls, outdir: Path) -> _Identity | None:
        """None where there is none. RunError for one that cannot be read."""
        path = outdir / IDENTITY
        if not path.exists():
            return None
        try:
            content = formats.identity(json.loads(path.read_text()), path)
            return cls(dict(content["began"]), list(content["durations"]), dict(content["fingerprints"]))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RunError(
                f"{path} cannot be read ({error!r}). Choose another --outdir, or remove the file if the "
                "run's data and models are as they were."
            ) from None


def _keep(
    outdir: Path,
    identity: _Identity,
    found: Mapping[str, Fingerprint] | None,
    wanted: Mapping[str, Any],
) -> Claim:
    """Write what is new of a run's identity. What was not there at first counts from when it is."""
    new = {k: v for k, v in (found or {}).items() if not is_known(identity.fingerprints.get(k))}
    fingerprints = identity.fingerprints | new
    durations = sorted({*identity.durations, wanted[DURATION]})
    path = outdir / IDENTITY
    content = {"format": formats.IDENTITY_FORMAT, "began": identity.began, "durations": durations}
    if not path.exists() or (durations, fingerprints) != (identity.durations, identity.fingerprints):
        write_json(path, {**content, "fingerprints": fingerprints})
    return Claim(identity.began, tuple(durations[:-1]))


def _check_same(
    outdir: Path,
    there: Mapping[str, Any],
    wanted: Mapping[str, Any],
    identity: _Identity,
    found: Mapping[str, Fingerprint],
    may_grow: bool,
) -> None:
    """RunError where options or contents are another run's; says what is spelled otherwise, or has grown."""
    changed, notes = [], []
    longest = max(identity.durations)
    for name in sorted(wanted.keys() | there.keys()):
        old, new = there.get(name), wanted.get(name)
        then, now = identity.fingerprints.get(name), found.get(name)
        short = name.rpartition(".")[2]
        if is_known(then) and is_known(now):
            if differing := difference(then, now):
                changed.append(
                    f"{name}: {old!r} was {shown(then)} there, {new!r} is {shown(now)} now, of other "
                    f"{', '.join(differing)}"
                )
            elif old != new:
                notes.append(f"{option_of(short)} {new} holds what the run began with, {old}")
            if not differing and (parts := unseen(then, now)):
                notes.append(f"{option_of(short)} {new} was written again: not compared are the {parts}")
        elif name == DURATION and may_grow:
            if new < longest:
                raise RunError(
                    f"--duration {new} is shorter than the {longest} images that the run in {outdir} was "
                    "asked for: what is trained is not taken back. Give that duration or a longer one, or "
                    "choose another --outdir."
                )
            if new > longest:
                notes.append(
                    f"--duration grows from {longest:,} to {new:,} images: what is trained stays as it is, "
                    "since no learning rate looks at the end, and an evaluation at the old end stays a row"
                )
        elif old != new and not (name in LOOKS and _same_place(old, new)):
            changed.append(f"{name}: {old!r} there, {new!r} asked")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise RunError(
            f"--outdir {outdir} holds another run's state ({', '.join(changed[:3])}{more}). Choose another "
            "--outdir, or give that run's options, and files as they were, to resume it."
        )
    for note in notes:
        say(True, f"note: {note}.")


def _same_place(old: Any, new: Any) -> bool:
    """Whether both are one path, spelled in two ways."""
    return isinstance(old, str) and isinstance(new, str) and Path(old).resolve() == Path(new).resolve()
