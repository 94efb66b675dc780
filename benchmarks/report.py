"""Results of the benchmarks as Markdown and PNG.

Run: pytest benchmarks/ --benchmark-only --benchmark-json results.json
     python benchmarks/report.py results.json [FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Target(NamedTuple):
    """A promise about `key` of the rows whose extra_info has `where`; at least or at most `limit`."""

    where: dict[str, Any]
    key: str
    limit: float
    at_most: bool = False

    def applies(self, info: dict) -> bool:
        row_matches = info["row"].startswith(self.where["row"])
        return row_matches and all(info.get(k) == v for k, v in self.where.items() if k != "row")

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


AT_MOST = ("over_busy", "over_floor_and_bytes")
PAST_CACHE = {"row": "pointwise-", "size": "past cache"}
TARGETS = [
    Target({"row": "step-bf16-k3"}, "over_naive", 3.4),
    Target({"row": "step-bf16-k7"}, "over_naive", 3.9),
    Target({"row": "step-bf16-k3"}, "over_floor", 1.12, at_most=True),
    Target({"row": "step-fp32-k3"}, "over_floor", 1.08, at_most=True),
    Target({"row": "step-bf16-k3"}, "over_compile", 1.1),
    Target({"row": "step-fp32-k3"}, "over_compile", 1.08),
    Target({"row": "step-embedded"}, "over_naive", 2.8),
    Target({"row": "step-embedded"}, "over_floor", 1.5, at_most=True),
    Target({"row": "step-default"}, "over_compile", 1.3),
    Target({"row": "memory-k15"}, "over_k1", 1.15, at_most=True),
    Target({"row": "contrast-loss", "dtype": "torch.float32"}, "share_of_copy", 0.7),
    Target({"row": "contrast-loss", "dtype": "torch.float32"}, "over_torch", 8),
    Target(PAST_CACHE | {"bound_by_arithmetic": False}, "share_of_copy", 0.6),
    Target(PAST_CACHE | {"bound_by_arithmetic": True}, "share_of_bound", 0.8),
    Target({"row": "pointwise-", "size": "network"}, "over_compile", 1.0),
    Target({"row": "optimizer", "size": "past cache"}, "over_torch", 2),
    Target({"row": "head-one-pass", "dtype": "torch.float32"}, "over_floor", 1.15, at_most=True),
    Target({"row": "head-one-pass", "dtype": "torch.bfloat16"}, "over_floor", 1.3, at_most=True),
    Target({"row": "head-two-passes"}, "over_floor", 1.15, at_most=True),
    *(Target({"row": row}, "over_torch", 1) for row in ("head-one-pass", "head-two-passes")),
    Target({"row": "head-memory"}, "memory_over_torch", 0.25, at_most=True),
    Target({"row": "head-cc-dpo"}, "over_liger", 1),
    Target({"row": "var-step", "dtype": "torch.float32"}, "over_reference", 1.1),
    Target({"row": "var-step", "dtype": "torch.bfloat16", "native": True}, "over_reference", 2),
    Target({"row": "data-png", "case": "dali"}, "images_per_second", 10_000),
    Target({"row": "data-png", "case": "dali"}, "over_torch", 3),
    *(
        Target({"row": f"sampler-b{num_images}-fp32"}, key, limit)
        for key, limits in (("over_eager", (2.5, 2.5, 2.2, 2.2)), ("over_compile", (0.9, 0.9, 1.2, 1.2)))
        for num_images, limit in zip((1, 8, 64, 250), limits, strict=True)
    ),
    Target({"row": "sampler-b64-bf16"}, "over_eager", 3.5),
    Target({"row": "sampler-b1-fp32"}, "guided_over_unguided", 1.6, at_most=True),
    Target({"row": "sampler-b64-fp32"}, "guided_over_unguided", 1.9, at_most=True),
    *(
        Target({"row": f"sampler-gpu-b{num_images}"}, "over_kernels", limit, at_most=True)
        for num_images, limit in ((1, 1.25), (8, 1.10), (64, 1.05))
    ),
    Target({"row": "sampler-gpu-b1"}, "guided_over_unguided", 1.25, at_most=True),
    Target({"row": "sampler-gpu-b64"}, "guided_over_unguided", 1.9, at_most=True),
    *(
        Target({"row": "step-gpu-s64-k3", "num_images": num_images}, key, limit, at_most=key in AT_MOST)
        for num_images, limits in (
            (4, {"over_busy": 1.06}),
            (16, {"over_busy": 1.06, "over_floor_and_bytes": 1.1, "over_compile": 1.12, "over_nvlabs": 2.3}),
            (64, {"over_busy": 1.06, "over_floor_and_bytes": 1.1, "over_compile": 1.1}),
        )
        for key, limit in limits.items()
    ),
    Target({"row": "data-wait"}, "wait_share", 0.02, at_most=True),
]
RATIOS = (
    "over_eager",
    "guided_over_unguided",
    "over_kernels",
    "over_naive",
    "over_naive_same_dtype",
    "precision",
    "deduplication",
    "fusion",
    "over_compile",
    "over_autotune",
    "over_nvlabs",
    "over_nvlabs_2nk",
    "over_busy",
    "over_floor",
    "floor_and_bytes",
    "over_floor_and_bytes",
    "over_k1",
    "over_torch",
    "over_liger",
    "over_reference",
    "memory_over_torch",
    "share_of_copy",
    "share_of_bound",
    "images_per_second",
    "wait_share",
    "microseconds",
    "over_aten_add",
)


SHOWN_ROW = "step-bf16-k3"  # the picture's
SHOWN_TITLE = "One training step: 8 images with 3 wrong labels each, at 32x32"
BARS = {
    "naive": "the paper's algorithm, PyTorch, float32",
    "naive_same_dtype": "the same in bfloat16",
    "compiled": "no pair scored twice, torch.compile",
    "ours": "mclr_fast, bfloat16",
}


class Line(NamedTuple):
    """One figure of the report."""

    row: str
    case: str
    ours: str
    key: str
    value: float
    range: str
    target: str
    met: str


def lines_of(records: Sequence[dict]) -> list[Line]:
    """Every ratio of every benchmark; `records` as in the JSON file's "benchmarks"."""
    lines = []
    for record in records:
        info = record["extra_info"]
        if "row" not in info:
            continue
        own = info.get("milliseconds", {}).get("ours")
        ours = "" if own is None else f"{own:.3g} ms ({info['spread']['ours']:.0%})"
        parts = [info.get(key, "") for key in ("dtype", "direction", "size", "case")]
        case = " ".join(str(part).removeprefix("torch.") for part in parts if part)
        for key in (key for key in RATIOS if key in info):
            low, high = info["ranges"][key]
            target = next((t for t in TARGETS if t.key == key and t.applies(info)), None)
            wanted = met = ""
            if target is not None:
                wanted = f"{'at most' if target.at_most else 'at least'} {target.limit:g}"
                met = "yes" if target.met(info[key]) else "NO"
            spread = f"{low:.2f} to {high:.2f}"
            lines.append(Line(info["row"], case, ours, key, info[key], spread, wanted, met))
        not_run = dict(info.get("not_run", {}))
        if "no_compile" in info:
            not_run["over_compile"] = info["no_compile"]
        lines += [
            Line(info["row"], case, ours, key, float("nan"), why, "", "") for key, why in not_run.items()
        ]
    return lines


HEADER = ("row", "case", "ours (IQR)", "ratio", "median", "range", "target", "met")


def _cells(line: Line) -> tuple[str, ...]:
    value = "not run" if line.value != line.value else f"{line.value:.2f}"
    return (line.row, line.case, line.ours, line.key, value, line.range, line.target, line.met)


def text_table(records: Sequence[dict]) -> str:
    """The lines as aligned columns."""
    rows = [HEADER, *map(_cells, lines_of(records))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown_table(records: Sequence[dict]) -> str:
    """The lines as a Markdown table."""
    rows = [HEADER, ("---",) * len(HEADER), *map(_cells, lines_of(records))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown(records: Sequence[dict]) -> str:
    """The machine, and the lines as a Markdown table."""
    machine = next((r["extra_info"]["machine"] for r in records if "machine" in r["extra_info"]), {})
    facts = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in machine.items())
    note = "Contenders are timed in turn within each round; ratios are medians over the rounds of one run."
    return f"# Benchmarks\n\nMachine: {facts}.\n\n{note}\n\n{markdown_table(records)}\n"


def picture(records: Sequence[dict], path: Path) -> bool:
    """Four bars: milliseconds of one training step in bfloat16, ours and what else makes it.

    Returns whether the results hold that row; nothing is written where they do not.
    """
    from mclr_fast.reports.figures.style import GUIDED, MUTED, TRAINED, axes, styled

    found = (record["extra_info"] for record in records if record["extra_info"].get("row") == SHOWN_ROW)
    info = next((info for info in found if "milliseconds" in info), None)
    if info is None:
        return False
    bars = [
        (words, info["milliseconds"][name]) for name, words in BARS.items() if name in info["milliseconds"]
    ]
    own = info["milliseconds"]["ours"]
    where = f"{info['machine']['processor']}, {info['machine']['cores']} cores"
    with styled():
        figure, ax = axes((8, 2.6), "", f"milliseconds on {where}; lower is better")
        figure.suptitle(SHOWN_TITLE, x=0.01, ha="left", weight="bold", size=11)
        for place, (_, milliseconds) in enumerate(reversed(bars)):
            is_own = milliseconds == own
            ax.barh(place, milliseconds, color=TRAINED if is_own else GUIDED, height=0.65)
            ratio = "" if is_own else f"   {milliseconds / own:.1f} times as long"
            ax.text(milliseconds, place, f" {milliseconds:,.0f}{ratio}", va="center", color=MUTED)
        ax.set_yticks(range(len(bars)), [words for words, _ in reversed(bars)])
        ax.grid(visible=False)
        ax.set_xlim(0, 1.6 * max(milliseconds for _, milliseconds in bars))
        figure.savefig(path, dpi=150, metadata={"Software": None})
    return True


def write(results: Path, folder: Path) -> list[Path]:
    """`folder`/benchmarks.md, and benchmarks.png where its row was run, from a --benchmark-json file."""
    records = json.loads(results.read_text())["benchmarks"]
    folder.mkdir(parents=True, exist_ok=True)
    text, image = folder / "benchmarks.md", folder / "benchmarks.png"
    text.write_text(markdown(records))
    return [text, image] if picture(records, image) else [text]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the benchmarks' results as Markdown and PNG.")
    parser.add_argument("results", type=Path, help="file written by --benchmark-json")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."), help="where to write")
    for path in write(*vars(parser.parse_args()).values()):
        print(path)


if __name__ == "__main__":
    main()
