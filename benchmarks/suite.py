"""What every benchmark gets: the options, the machine's figures, and where results go."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import machine
import report


class Suite:
    """The fixture. quick, parts, rows: the options of these names; records: one a benchmark, as in `rows`."""

    def __init__(self, quick: bool = False, parts: list[str] | None = None, rows: Path | None = None):
        self.quick, self.parts, self.rows = quick, parts, rows
        self.backend = "eager" if quick else "inductor"
        self.records: list[dict] = []

    @cached_property
    def machine(self) -> dict:
        return machine.measure(self.quick)

    def rounds(self, count: int) -> int:
        return 2 if self.quick else count

    def record(self, benchmark, ratios: dict[str, Sequence[float]]) -> None:
        """Ratios of each round -> median and range in extra_info, and a line of the summary.

        A benchmark that has more to say records again: its last line of the summary and of --rows is whole.

        Errors    ValueError for what the summary would pass over: no `row`, or an unknown ratio.
        """
        info = benchmark.extra_info
        unseen = [key for key in ratios if key not in report.RATIOS]
        if unseen or "row" not in info:
            raise ValueError(f"the summary shows nothing of {benchmark.name}: row {'row' in info}, {unseen}.")
        ranges = info.setdefault("ranges", {})
        for key, values in ratios.items():
            info[key] = statistics.median(values)
            ranges[key] = [min(values), max(values)]
        record = {"name": benchmark.name, "fullname": benchmark.fullname}
        record["extra_info"] = copy.deepcopy(dict(info))
        self.records = [old for old in self.records if old["fullname"] != benchmark.fullname] + [record]
        if self.rows:
            with self.rows.open("a") as file:
                file.write(json.dumps(record) + "\n")
