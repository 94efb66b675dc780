"""Times of the benchmarks that are kept, by kind of machine, and which rows have since become slower.

Run: pytest benchmarks/ --benchmark-only --compare     (--keep: the run's times are kept from now on)
     python benchmarks/history.py rows.jsonl           (keeps those of a run's --rows file)
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "baselines"


class Change(NamedTuple):
    """A row's time against the kept one.

    Attributes: milliseconds, before; spread: the two interquartile ranges, of the earlier time; others: what
    the other contenders' times have become, of their earlier ones (median), if any were timed both times.
    """

    row: str
    milliseconds: float
    before: float
    spread: float
    others: float | None
    date: str

    @property
    def slower(self) -> bool:
        """By more than the spread."""
        return self.milliseconds - self.before > self.spread * self.before

    @property
    def faster(self) -> bool:
        return self.before - self.milliseconds > self.spread * self.before


def kind(machine: dict) -> str:
    """Processor, what it can and how many cores; a GPU's name: a file's name."""
    parts = [machine["processor"], machine.get("capability", "")]
    parts += [f"{machine['cores']} cores"] if "cores" in machine else []
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def timed(records: Sequence[dict]) -> list[dict]:
    """Those with times on a known machine; the last of each benchmark."""
    last = {record["fullname"]: record for record in records}
    return [r for r in last.values() if {"milliseconds", "machine"} <= r["extra_info"].keys()]


def key(record: dict) -> str:
    """The benchmark, wherever pytest was started."""
    return record["fullname"].rpartition("/")[2]


def kept(kind_of_machine: str, folder: Path | None = None) -> dict[str, dict]:
    """{benchmark: its times}; empty where nothing is kept of this kind."""
    path = (folder or FOLDER) / f"{kind_of_machine}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else {}


def keep(records: Sequence[dict], folder: Path | None = None, today: str | None = None) -> list[Path]:
    """Keep the records' times in place of these rows' earlier ones; the files written."""
    today = today or datetime.date.today().isoformat()
    written = set()
    for record in timed(records):
        info = record["extra_info"]
        path = (folder or FOLDER) / f"{kind(info['machine'])}.json"
        rows = kept(path.stem, folder)
        row = {"date": today, "torch": info["machine"]["torch"]}
        for name in ("milliseconds", "spread"):
            row[name] = {contender: float(f"{value:.4g}") for contender, value in info[name].items()}
        rows[key(record)] = row
        content = {"processor": info["machine"]["processor"], "rows": dict(sorted(rows.items()))}
        path.write_text(json.dumps(content, indent=1) + "\n")
        written.add(path)
    return sorted(written)


def changes(records: Sequence[dict], folder: Path | None = None) -> tuple[list[Change], list[str]]:
    """The rows that were timed before on this kind of machine, and the names of those that were not."""
    found, new = [], []
    for record in timed(records):
        info, name = record["extra_info"], key(record)
        before = kept(kind(info["machine"]), folder).get(name)
        if before is None:
            new.append(name)
        else:
            found.append(_change(name, info, before))
    return found, new


def _change(name: str, info: dict, before: dict) -> Change:
    now, then = info["milliseconds"], before["milliseconds"]
    spread = before["spread"]["ours"] + info["spread"]["ours"] * now["ours"] / then["ours"]
    ratios = sorted(now[other] / then[other] for other in now.keys() & then.keys() - {"ours"})
    others = ratios[len(ratios) // 2] if ratios else None
    return Change(name, now["ours"], then["ours"], spread, others, before["date"])


def text(records: Sequence[dict], folder: Path | None = None) -> str:
    """What has become slower, line by line, and how many have not."""
    found, new = changes(records, folder)
    slower = [change for change in found if change.slower]
    lines = []
    for change in sorted(slower, key=lambda change: change.before / change.milliseconds):
        others = "" if change.others is None else f"; what it is compared with {change.others - 1:+.0%}"
        lines.append(
            f"SLOWER {change.row}: {change.milliseconds:.4g} ms, {change.before:.4g} on {change.date} "
            f"({change.milliseconds / change.before - 1:+.0%}, spread {change.spread:.0%}{others})"
        )
    faster = sum(change.faster for change in found)
    same = len(found) - len(slower) - faster
    lines.append(f"{len(slower)} rows slower, {faster} faster, {same} within their spread")
    if new:
        kinds = sorted({kind(record["extra_info"]["machine"]) for record in timed(records)})
        lines.append(f"{len(new)} rows are not kept of {', '.join(kinds)}; --keep keeps them")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Keep a run's times as the baseline of its kind of machine.")
    parser.add_argument("rows", type=Path, help="file that --rows of the benchmarks wrote")
    lines = parser.parse_args(arguments).rows.read_text().splitlines()
    for path in keep([json.loads(line) for line in lines]):
        print(path)


if __name__ == "__main__":
    main()
