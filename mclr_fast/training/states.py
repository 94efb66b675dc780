"""The saved states of one training: written beside it, whole or not at all, read by any number of ranks."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from mclr_fast.runtime.disk import errno_of, mend, reason, sync_folder
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.formats import STATE_FORMAT
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.faults import Fault
from mclr_fast.runtime.process.ranks import Ranks

from .state_files import DamagedState, StateReader, StateWriter, mark_complete, read_complete

# One process needs no process group; DCP would say so at every save.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)

State = Mapping[str, Mapping[str, Tensor]]
"""Group -> name -> tensor."""


class TrainingStates:
    """States of one training by images seen, `folder/<images seen>/`.

    A save copies the tensors and goes on in the background: every rank writes its share (DTensors by
    shard) into a hidden folder, rank 0 adds the marker with all hashes and renames the folder. The
    newest `keep` and the one told by `protect` stay. All methods but `settle` and `newest` are called
    on all ranks alike.
    """

    def __init__(self, folder: Path, ranks: Ranks, run: str, keep: int, fault: Fault):
        """run: what the run is, in a few characters; states of another are refused."""
        self.folder, self.ranks, self.run, self.keep, self.fault = folder, ranks, run, keep, fault
        self.protected: int | None = None
        self._last: int | None = None  # images seen of the state that was saved or loaded last
        self._pending: Future | None = None
        self._group = ranks.background_group()
        # Not DCP's DefaultStager: torch 2.11's is of no more use after one save.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=ranks.device.type == "cuda")
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="training-state")
        ranks.at_close(self.settle)

    def save(self, images_seen: int, state: State, meta: Any) -> None:
        """Begin to save; returns once `state` may change again. meta: JSON, the same on all ranks.

        Errors    RunError when the save before this one failed.
        """
        self.wait()
        if images_seen == self._last:
            return
        self._last = images_seen
        temporary = self.folder / f".{images_seen:012d}.tmp"
        writer = StateWriter(temporary, lambda: self.fault.at("written", images_seen))
        try:
            written = dcp.async_save(
                dict(state),
                storage_writer=writer,
                process_group=self._group,
                async_stager=self._stager,
                no_dist=self._group is None,
            )
        except OSError as error:
            raise self._failed(error) from error
        content = {"format": STATE_FORMAT, "run": self.run, "images_seen": images_seen, "meta": meta}
        self._pending = self._threads.submit(self._complete, written, temporary, content)

    def wait(self) -> None:
        """Wait until the save that was begun is complete. RunError, on all ranks, when it failed."""
        if self._pending is not None:
            self.settle()
            error = self.ranks.first(self._pending.exception())
            self._pending = None
            if error is not None:
                self._last = None
                raise self._failed(error) from error

    def settle(self) -> None:
        """Wait until this rank's part of the save that was begun is over, well or not."""
        if self._pending is not None:
            self._pending.exception()

    def protect(self, images_seen: int) -> None:
        """Keep the state of this time, and no longer the one told before."""
        self.protected = images_seen

    def newest(self) -> Path | None:
        """The newest complete state's folder, by its name."""
        return max(self._folders(), default=None)

    def load(self, state: State) -> Any:
        """Fill `state`'s tensors, of any sharding, from the newest sound state; returns its meta.

        None where there is none yet: one that was cut short before it was complete never was one. A damaged
        one is put aside, with a warning, for the one before it.

        Errors    ValueError when names or shapes are not `state`'s; RunError when it is another run's, when
                  one cannot be read, and when there are states and all are damaged.
        """
        try:
            found = self.ranks.on_main(self._newest_sound)
        except OSError as error:
            raise RunError(
                f"{error.filename or self.folder} cannot be read: {reason(error)}. Nothing was changed: run "
                "the same command again when it can be."
            ) from error
        if found is None:
            return None
        folder, content = found
        if content["run"] != self.run:
            raise RunError(f"{folder} was written by another run. Choose another --outdir.")
        reader = StateReader(folder, content["files"])
        try:
            check_same(state, reader.read_metadata().state_dict_metadata)
            dcp.load(
                dict(state), storage_reader=reader, process_group=self._group, no_dist=self._group is None
            )
        except (DamagedState, CheckpointException, OSError) as error:
            raise RunError(f"{folder} cannot be read: {reason(first_failure(error))}.") from error
        self._last = content["images_seen"]
        return content["meta"]

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*") if path.name.isdigit())

    def _newest_sound(self) -> tuple[Path, dict] | None:
        """Rank 0: also removes what killed saves have left."""
        old = self.folder.with_suffix(".safetensors")
        if old.exists():
            raise RunError(
                f"{old} is a state of an older mclr_fast, which is not read. Choose another --outdir."
            )
        for path in self.folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)
        damaged: dict[Path, DamagedState] = {}
        for folder in reversed(self._folders()):
            try:
                found = folder, read_complete(folder)
            except DamagedState as damage:
                damaged[folder] = damage
                continue
            for other, damage in damaged.items():
                self._put_aside(other, damage)
            return found
        self._check_none_lost(damaged)
        return None

    def _put_aside(self, folder: Path, damage: DamagedState) -> None:
        """Rename a damaged state: there is one before it."""
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        say(True, f"warning: {folder} is damaged ({damage}): going on from the one before it.")

    def _check_none_lost(self, damaged: Mapping[Path, DamagedState]) -> None:
        """RunError where there were states and none is sound: the run would begin again, unasked."""
        lost = [f"{folder} is damaged ({damage})" for folder, damage in damaged.items()]
        aside = sorted(self.folder.glob("damaged-*"), reverse=True)
        lost += [f"{folder} was put aside as damaged" for folder in aside]
        if lost:
            more = f", as {len(lost) - 1} more there" if len(lost) > 1 else ""
            raise RunError(
                f"{lost[0]}{more}, and no sound state is left to go on from. Nothing was changed: bring back "
                f"a whole copy, or, to begin again at 0, remove {self.folder} or choose another --outdir."
            )

    def _complete(self, written: Future, temporary: Path, content: dict) -> None:
        """In the background, once this rank's data are written; rank 0 makes the state count."""
        try:
            written.result()
            if not self.ranks.is_main:
                return
            images_seen = content["images_seen"]
            mark_complete(temporary, content)
            self.fault.at("marked", images_seen)
            folder = self.folder / f"{images_seen:012d}"
            os.rename(temporary, folder)
            sync_folder(self.folder)
            self.fault.at("saved", images_seen, folder)
            for old in self._folders()[: -self.keep]:
                if int(old.name) != self.protected:
                    gone = old.with_name(f".{old.name}.tmp")
                    old.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
        except BaseException as error:
            if self.ranks.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            # Exceptions of DCP's are none of Exception, and hold tracebacks that do not travel.
            first = first_failure(error)
            raise OSError(errno_of(first), reason(first)) from error

    def _failed(self, error: BaseException) -> RunError:
        newest = self.newest()
        kept = f"the state at {newest} is intact" if newest else "none was saved before"
        return RunError(
            f"cannot write a state to {self.folder}: {reason(error)}. {mend(error)}, then run the same "
            f"command again; {kept}."
        )


def check_same(state: State, saved: Mapping[str, Any]) -> None:
    """ValueError, naming the first difference, unless names and shapes agree."""
    state = {f"{group}.{name}": value for group, part in state.items() for name, value in part.items()}
    if differing := sorted(state.keys() ^ saved.keys()):
        raise ValueError(f"{len(differing)} tensors are missing or unknown, first {differing[0]!r}")
    for name, tensor in state.items():
        if tensor.shape != saved[name].size:
            raise ValueError(
                f"{name!r} is {list(saved[name].size)} in the file and {list(tensor.shape)} in the run"
            )


def first_failure(error: BaseException) -> BaseException:
    """The first rank's own exception, where DCP has wrapped those of all."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
