"""The runs of a table: each in a folder named after its settings, made once, then only read."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mclr_fast.config import ObjectiveConfig, RunConfig, TrainConfig

from .checkpoint import replacing, write_json
from .distributed import Ranks
from .errors import RunError
from .logs import say
from .proof import judge_best
from .run import Run
from .setup import check_options
from .signals import StopRequest

Settings = dict[str, Any]
"""Options of the objective or of training, by name."""
OBJECTIVE, TRAIN = ({field.name for field in dataclasses.fields(c)} for c in (ObjectiveConfig, TrainConfig))


class OutOfTime(Exception):
    """The slice of time is over; what is done is kept."""


class Cells:
    """Runs cells, or reads them where they are done.

    Attributes: seconds, num_done: of the cells asked for so far, in this process and before it.
    """

    def __init__(self, config: RunConfig, ranks: Ranks, stop: StopRequest):
        """config: the table's; `config.table["tried"]` are the evaluation options of the cells that try."""
        self.config, self.ranks, self.stop = config, ranks, stop
        self.shared = config.folder / "shared"
        self.started = time.perf_counter()
        self.seconds, self.num_done = 0.0, 0

    def config_of(self, objective: str, settings: Settings, seed: int, *, tried: bool) -> RunConfig:
        """The run of a cell; RunError for settings that cannot be. tried: with the short evaluations."""
        unknown = settings.keys() - OBJECTIVE - TRAIN
        if unknown:
            raise RunError(f"{', '.join(sorted(unknown))}: no option of the objective or of training.")
        own = {key: value for key, value in settings.items() if key in OBJECTIVE}
        config = self.config
        config = replace(
            config,
            recipe=f"{config.recipe}: {name_of(objective, settings)}",
            seed=seed,
            outdir=config.folder / ("tried" if tried else "final") / f"{name_of(objective, settings)}-{seed}",
            objective=replace(
                config.objective,
                objective=objective,
                negatives=self.shared / "base-samples.zip",
                classifier=self.shared / "classifier.safetensors",
                **own,
            ),
            train=replace(config.train, **{k: v for k, v in settings.items() if k in TRAIN}),
            eval=replace(config.eval, **config.table["tried"]) if tried else config.eval,
            table=None,
            proof_seeds=(),
        )
        check_options(config, self.ranks.size)
        return config

    def tried(self, objective: str, settings: Settings, seed: int) -> dict:
        """The summary of a run with the short evaluations."""
        config = self.config_of(objective, settings, seed, tried=True)
        return self._kept(config, "summary.json", lambda config: self._execute(config)[1])

    def final(self, objective: str, settings: Settings, seed: int) -> dict:
        """A run with the full evaluations: {"judged": its best checkpoint on fresh seeds, "summary"}."""
        config = self.config_of(objective, settings, seed, tried=False)
        return self._kept(config, "judged.json", self._judged)

    def judged_base(self, like: tuple[str, Settings, int], guidance: float) -> list[dict]:
        """The base's rows on the final runs' fresh seeds, without and with guidance."""
        run = Run(self.config_of(*like, tried=False), self.ranks, self.stop)
        judge = run.final_evaluator()
        base = judge.evaluate(run.base, "base", 0)
        guided = judge.evaluate(run.base, f"cfg-{guidance:g}", 0, guidance=guidance)
        return [base.row, guided.row]

    def _kept(self, config: RunConfig, file: str, make) -> dict:
        """The JSON that `make(config)` gives, kept as `file` in the cell's folder."""
        path = config.folder / file
        found = self.ranks.on_main(lambda: json.loads(path.read_text()) if path.exists() else None)
        if found is None:
            minutes = self.config.table_minutes
            if minutes and time.perf_counter() - self.started > 60 * minutes:
                raise OutOfTime
            say(self.ranks.is_main, f"\n{config.folder}")
            found = make(config)
            self.ranks.on_main(write_json, path, found)
        self.seconds += found["seconds"]
        self.num_done += 1
        return found

    def _judged(self, config: RunConfig) -> dict:
        started = time.perf_counter()
        run, summary = self._execute(config)
        objective = config.objective.objective
        judged = judge_best(run.final_evaluator(), run, objective, config.seed, "best", summary)
        return {"judged": judged.row, "summary": summary, "seconds": time.perf_counter() - started}

    def _execute(self, config: RunConfig) -> tuple[Run, dict]:
        """Run a cell; the base's evaluation is made by the first of those that have as many samples."""
        run = Run(config, self.ranks, self.stop)
        own = run.evaluator().path("base", 0)
        kept = self.shared / f"base-{config.eval.num_samples}.safetensors"
        self.ranks.on_main(copy_missing, kept, own)
        summary = run.execute()
        self.ranks.on_main(copy_missing, own, kept)
        return run, summary


def name_of(objective: str, settings: Settings) -> str:
    """A folder's name: mclr,lr=0.0001,num_negatives=3."""
    return ",".join([objective, *(f"{key}={value:g}" for key, value in sorted(settings.items()))])


def copy_missing(source: Path, target: Path) -> None:
    """Copy a file where it is not yet; nothing if the source is missing."""
    if source.exists() and not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
