"""The runs of a table: each in a folder named after its settings, made once, then only read.

Several processes of one table share the work: each holds the lock of the cell that it makes, and passes over
those that others hold.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mclr_fast.config import ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.evaluation.rows import Row
from mclr_fast.reports.summary import Summary
from mclr_fast.reports.table_summary import Settings
from mclr_fast.runtime import formats
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing, write_json
from mclr_fast.runtime.locks import held, waited_for
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from ..checks import check_options
from ..proof import judge_best
from ..run import Run

OBJECTIVE, TRAIN = ({field.name for field in dataclasses.fields(c)} for c in (ObjectiveConfig, TrainConfig))

WAIT_SECONDS = 5


@dataclass(frozen=True)
class Judged:
    """A final run: the row that the judge gave its best checkpoint, its own summary, and what both took."""

    judged: Row
    summary: Summary
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The content of judged.json."""
        parts = {"judged": self.judged.to_json(), "summary": self.summary.to_json()}
        return {"format": formats.SUMMARY_FORMAT, **parts, "seconds": self.seconds}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Judged:
        """What `to_json` gave, of today's format."""
        judged, summary = Row.from_json(content["judged"]), Summary.from_json(content["summary"])
        return cls(judged, summary, content["seconds"])


Found = TypeVar("Found", Summary, Judged)


class OutOfTime(Exception):
    """The slice of time is over; what is done is kept."""


class Cells:
    """Runs cells, or reads them where they are done.

    Attributes: seconds, num_done: of the cells asked for since `start_over`, whoever made them;
    num_elsewhere: how many of those asked for another process is making; num_made: by this process.
    """

    def __init__(self, config: RunConfig, ranks: Ranks, stop: StopRequest):
        """config: the table's, see `cell_config`."""
        self.config, self.ranks, self.stop = config, ranks, stop
        self.shared, self.locks = shared_folder(config), config.folder / "locks"
        self.started = time.perf_counter()
        self.num_made, self.is_waiting = 0, False
        self.start_over()

    def start_over(self) -> None:
        """Count from here."""
        self.seconds, self.num_done, self.num_elsewhere = 0.0, 0, 0

    def config_of(self, objective: str, settings: Settings, seed: int, *, tried: bool) -> RunConfig:
        """The run of a cell, checked. As `cell_config`."""
        config = cell_config(self.config, objective, settings, seed, tried=tried)
        check_options(config, self.ranks.size)
        return config

    def tried(self, objective: str, settings: Settings, seed: int) -> Summary | None:
        """The summary of a run with the short evaluations; None while another process makes it."""
        config = self.config_of(objective, settings, seed, tried=True)
        path = config.folder / "summary.json"

        def read(content: dict[str, Any]) -> Summary:
            return Summary.from_json(formats.summary(content, path))

        return self._kept(config, path, read, lambda config: self._execute(config)[1])

    def final(self, objective: str, settings: Settings, seed: int) -> Judged | None:
        """A run with the full evaluations, judged on fresh seeds; None while another process makes it."""
        config = self.config_of(objective, settings, seed, tried=False)
        path = config.folder / "judged.json"

        def read(content: dict[str, Any]) -> Judged:
            return Judged.from_json(formats.judged(content, path))

        return self._kept(config, path, read, self._judged)

    def judged_base(self, like: tuple[str, Settings, int], guidance: float | None) -> list[Row]:
        """The base's rows on the final runs' fresh seeds, without and with guidance (None: without)."""
        run = Run(self.config_of(*like, tried=False), self.ranks, self.stop)
        judge = run.final_evaluator()
        net = run.base_on_device()
        base = judge.evaluate(net, "base", "base")
        if guidance is None:
            return [base.row]
        guided = judge.evaluate(net, f"cfg-{guidance:g}", "guidance", guidance=guidance)
        return [base.row, guided.row]

    def wait(self) -> None:
        """Give the processes that make the missing cells some time. OutOfTime when there is none left."""
        if not self.is_waiting:
            say(self.ranks.is_main, f"waiting for {self.num_elsewhere} runs that other processes make")
        self.is_waiting = True
        for _ in range(WAIT_SECONDS):
            self._check_time()
            self.ranks.on_main(self.stop.check)
            time.sleep(1)

    def once(self, name: str) -> AbstractContextManager[None]:
        """A block that one process of the table is in at a time."""
        return waited_for(self.locks / f"{name}.lock", self.ranks, self.stop)

    def _kept(
        self,
        config: RunConfig,
        path: Path,
        read: Callable[[dict[str, Any]], Found],
        make: Callable[[RunConfig], Found],
    ) -> Found | None:
        """What `make(config)` gives, kept as JSON at `path` in the cell's folder; `read` reads that."""
        found = self._read(path, read)
        if found is None:
            self._check_time()
            lock = self.locks / f"{config.folder.parent.name}-{config.folder.name}.lock"
            with held(lock, self.ranks) as mine:
                found = self._read(path, read)  # it may have been finished since
                if found is None and mine:
                    say(self.ranks.is_main, f"\n{config.folder}")
                    found = make(config)
                    self.ranks.on_main(write_json, path, found.to_json())
                    self.num_made, self.is_waiting = self.num_made + 1, False
        if found is None:
            self.num_elsewhere += 1
            return None
        self.seconds += found.seconds
        self.num_done += 1
        return found

    def _read(self, path: Path, read: Callable[[dict[str, Any]], Found]) -> Found | None:
        return self.ranks.on_main(lambda: read(json.loads(path.read_text())) if path.exists() else None)

    def _check_time(self) -> None:
        """OutOfTime when the slice is over: by rank 0's clock, so that all ranks agree."""
        minutes = self.config.table_minutes
        over = self.ranks.on_main(lambda: time.perf_counter() - self.started > 60 * minutes)
        if minutes and over:
            raise OutOfTime

    def _judged(self, config: RunConfig) -> Judged:
        started = time.perf_counter()
        run, summary = self._execute(config)
        judged = judge_best(run.final_evaluator(), run, "trained", summary)
        return Judged(judged.row, summary, time.perf_counter() - started)

    def _execute(self, config: RunConfig) -> tuple[Run, Summary]:
        """Run a cell, with what all cells share made by the first that needs it."""
        run = Run(config, self.ranks, self.stop)
        with self.once("shared"):
            self._share(run)
        summary = run.execute()
        for own, kept in self._of_base(run).items():
            self.ranks.on_main(copy_missing, own, kept)
        return run, summary

    def _share(self, run: Run) -> None:
        """See to the base's samples, the classifier, and the base's evaluation of as many samples.

        Its rows under guidance are those of the first cell that has made them.
        """
        options = run.config.objective
        places = self._of_base(run)
        own, kept = next(iter(places.items()))
        if not self.ranks.on_main(lambda: options.negatives.exists() and options.classifier.exists()):
            run.needs.make()
        if not self.ranks.on_main(kept.exists):
            run.evaluate_base(run.evaluator())
            self.ranks.on_main(copy_missing, own, kept)
        for own, kept in places.items():
            self.ranks.on_main(copy_missing, kept, own)

    def _of_base(self, run: Run) -> dict[Path, Path]:
        """Where a cell keeps the base's evaluations, unguided and guided -> where all cells find them."""
        options, guided = run.config.eval, run.model.family.guided
        names = ["base", *(f"{guided}-{guidance:g}" for guidance in options.cfg_scales)]
        return {
            run.outdir / "evaluations" / f"{name}-0.safetensors": self.shared
            / f"{name}-{options.num_samples}.safetensors"
            for name in names
        }


def cell_config(
    config: RunConfig, objective: str, settings: Settings, seed: int, *, tried: bool
) -> RunConfig:
    """The run of a cell of a table's; RunError for settings that cannot be.

    tried: with `config.table`'s evaluation options for trying, "tried", and its training's, "tried_train".
    """
    unknown = settings.keys() - OBJECTIVE - TRAIN
    if unknown:
        raise RunError(f"{', '.join(sorted(unknown))}: no option of the objective or of training.")
    usual = vars(config.objective) | vars(config.train)
    # A setting that the recipe has anyway is not in the name: so one that is spelled out is not run again.
    name = name_of(objective, {key: value for key, value in settings.items() if value != usual[key]})
    train = {key: value for key, value in settings.items() if key in TRAIN}
    return replace(
        config,
        recipe=f"{config.recipe}: {name}",
        seed=seed,
        outdir=config.folder / ("tried" if tried else "final") / f"{name}-{seed}",
        objective=replace(
            config.objective,
            objective=objective,
            negatives=shared_folder(config) / "base-samples.zip",
            classifier=shared_folder(config) / "classifier.safetensors",
            **{key: value for key, value in settings.items() if key in OBJECTIVE},
        ),
        train=replace(config.train, **(config.table.get("tried_train", {}) if tried else {}), **train),
        eval=replace(config.eval, **config.table["tried"]) if tried else config.eval,
        table=None,
        proof_seeds=(),
    )


def shared_folder(config: RunConfig) -> Path:
    """Of what all cells share."""
    return config.folder / "shared"


def name_of(objective: str, settings: Settings) -> str:
    """A folder's name: mclr,lr=0.0001,num_negatives=3."""
    return ",".join([objective, *(f"{key}={value:g}" for key, value in sorted(settings.items()))])


def copy_missing(source: Path, target: Path) -> None:
    """Copy a file where it is not yet; nothing if the source is missing."""
    if source.exists() and not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
