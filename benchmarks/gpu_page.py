"""The GPU's figures in docs/benchmarks-gpu.md and README.md, from the results of one run.

Run: pytest benchmarks/bench_step_gpu.py --benchmark-only --rows rows.jsonl
     python benchmarks/profile_step.py profile.json
     python benchmarks/count_step.py counted.json
     python benchmarks/gpu_page.py --rows rows.jsonl --profile profile.json --counted counted.json

The results are kept in docs/results; without new ones the pages are made again from what is kept there.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results/benchmarks-gpu-graphs.json"
PAGES = (ROOT / "docs/benchmarks-gpu.md", ROOT / "README.md")
STEP = "step-gpu-s64-k3"
FIGURES = {
    "over_busy": "over its kernels",
    "over_floor": "over its floor",
    "floor_and_bytes": "floor and bytes, over the floor",
    "over_floor_and_bytes": "over floor and bytes",
    "over_compile": "over_compile, default mode",
    "over_autotune": 'over_compile, "max-autotune"',
    "over_nvlabs": "over_nvlabs, N(1+K)",
    "over_nvlabs_2nk": "over_nvlabs, 2NK",
    "fusion": "over plain PyTorch, N(1+K)",
    "over_naive_same_dtype": "over_naive_same_dtype",
    "over_naive": "over_naive",
}
KERNELS = 12  # of a step are listed
COUNTED_GB = 0.1  # and operations that move as much
WIDTH = 130  # of the README's lines


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def step_rows(results: dict) -> list[dict]:
    """What was measured of EDM2-S at K = 3, by N."""
    infos = [record["extra_info"] for record in results["step"]]
    return sorted((i for i in infos if i["row"].startswith(STEP)), key=lambda info: info["num_images"])


def figure(info: dict, key: str) -> str:
    """Median and whether a promise was kept, or why there is none."""
    if key not in info:
        why = info.get("not_run", {}).get(key)
        return f"not run: {why}" if why else "-"
    target = next((t for t in report.TARGETS if t.key == key and t.applies(info)), None)
    if target is None:
        return f"{info[key]:.2f}"
    wanted = f"at {'most' if target.at_most else 'least'} {target.limit:g}"
    return f"{info[key]:.2f} ({wanted}: {'yes' if target.met(info[key]) else 'NO'})"


def step_table(results: dict) -> str:
    """A column an N."""
    infos = step_rows(results)
    machine = infos[0]["machine"]
    facts = (
        f"One {machine['processor']}, torch {machine['torch']}, copies at {machine['copy_GBs']:,.0f} GB/s."
    )
    rows = [
        ["the step", *(f"{i['milliseconds']['ours']:.1f} ms ({i['spread']['ours']:.0%})" for i in infos)],
        ["its floor", *(_milliseconds(i, "floor") for i in infos)],
        ["memory", *(f"{i.get('reserved_GiB', i['peak_GiB']):.1f} GiB" for i in infos)],
        *([name, *(figure(i, key) for i in infos)] for key, name in FIGURES.items()),
    ]
    header = ["EDM2-S, 64x64, K=3, bfloat16", *(f"N={i['num_images']}" for i in infos)]
    return f"{facts}\n\n{table(header, rows)}"


def _milliseconds(info: dict, name: str) -> str:
    return f"{info['milliseconds'][name]:.1f} ms" if name in info["milliseconds"] else "-"


def other_rows(results: dict) -> str:
    """The other settings, as benchmarks/report.py has them."""
    others = [r for r in results["step"] if not r["extra_info"]["row"].startswith(STEP)]
    return report.markdown_table(others) if others else "No other setting was in this run."


def profile_table(results: dict) -> str:
    rows = []
    for row in results["profile"]:
        how = row["graphs"] + (", cuDNN's benchmark mode" if row.get("cudnn_benchmark") else "")
        how += f", {row['what']}" if "what" in row else ""
        times = [f"{row['wall_ms']:.1f} ms", f"{row['busy_ms']:.1f} ms", f"{row['over_busy']:.2f}"]
        rows.append([str(row["N"]), how, *times, f"{row['launches']:,}", f"{row['reserved_GiB']:.1f} GiB"])
    return table(["N", "graphs", "wall", "busy", "wall / busy", "launches", "memory reserved"], rows)


def kernel_table(results: dict) -> str:
    """The longest kernels of the largest step that was profiled."""
    row = max((row for row in results["profile"] if row["kernels"]), key=lambda row: row["N"])
    longest = row["kernels"][:KERNELS]
    rest = sum(kernel[2] for kernel in row["kernels"][KERNELS:])
    rows = [[f"`{name[:90]}`", str(calls), f"{milliseconds:.1f}"] for name, calls, milliseconds in longest]
    rows.append([f"{len(row['kernels']) - len(longest)} others", "", f"{rest:.1f}"])
    return f"Of the step at N={row['N']}:\n\n{table(['kernel', 'calls', 'ms'], rows)}"


def bytes_table(results: dict) -> str:
    """What profile_step.py's account says of the kernels' bytes; without one, what count_step.py counted."""
    rows = [row for row in results["profile"] if row.get("account")]
    if not rows:
        return counted_table(results)
    row = max(rows, key=lambda row: row["N"])
    cells = [
        [
            f"`{line['name'][:60]}`",
            str(line["calls"]),
            f"{line['milliseconds']:.2f}",
            *(f"{line[key]:.2f}" if line.get(key) else "" for key in ("GB", "least_GB", "TFLOPs")),
            f"{line['share_of_copy']:.0%}" if line.get("share_of_copy") else "",
        ]
        for line in row["account"]
    ]
    header = [
        "of the step at N=" + str(row["N"]),
        "calls",
        "ms",
        "GB",
        "least GB",
        "TFLOP/s",
        "share of copy",
    ]
    return table(header, cells)


def counted_table(results: dict) -> str:
    """Bytes of the largest step that was counted, and what they take at the measured speed of a copy."""
    if not results.get("counted"):
        return "The bytes of each operation were not counted (`python benchmarks/count_step.py OUT.json`)."
    row = max(results["counted"], key=lambda row: row["N"])
    speed = step_rows(results)[0]["machine"]["copy_GBs"]
    cells = [
        [f"`{line['name']}`", str(line["calls"]), f"{line['GB']:.2f}", f"{line['least_GB']:.2f}"]
        for line in row["operations"]
        if line["GB"] >= COUNTED_GB
    ]
    for words, wanted in (("convolutions and products", True), ("all else", False)):
        group = [line for line in row["operations"] if line["is_product"] == wanted]
        calls, moved, least = (sum(line[key] for line in group) for key in ("calls", "GB", "least_GB"))
        cells.append([f"**{words}**", str(calls), f"{moved:.2f}", f"{least:.2f}"])
    header = [f"of a step at N={row['N']}", "calls", "GB", "least GB"]
    took, could = (f"{size / speed * 1e3:.1f} ms" for size in (moved, least))
    words = f"Counted, not timed. At a copy's {speed:,.0f} GB/s all else takes {took}, and its least {could}."
    return f"{table(header, cells)}\n\n{words}"


def sampler_table(results: dict) -> str:
    rows = []
    for record in results["sampler"]:
        info = record["extra_info"]
        batch = re.search(r"b(\d+)$", info["row"])[1]
        figures = [figure(info, key) for key in ("over_eager", "guided_over_unguided", "over_kernels")]
        rows.append([batch, f"{info['milliseconds']['ours']:,.0f} ms", *figures])
    return table(["batch", "ours", "over_eager", "guided / unguided", "over_kernels"], rows)


def ranks_table(results: dict) -> str:
    """What multi_gpu.sh found."""
    found = results.get("ranks")
    if not found:
        return (
            "Several GPUs have not been seen. `benchmarks/multi_gpu.sh`, on a node of 2 to 8, measures them."
        )
    lines = []
    for part in ("losses", "resume", "scaling", "data"):
        if "failed" in found.get(part, {}):
            lines.append(f"{part}: FAILED, {found[part]['failed']}")
    for sharding in ("replicate", "shard"):
        if row := found.get("losses", {}).get(sharding):
            losses = found["losses"]
            words = f"{sharding}: the losses of {losses['steps']} steps on {losses['ranks']} x "
            words += f"{losses['machine']['processor']} are one rank's to {row['worst']:.1e} of the energies"
            lines.append(f"{words} ({'yes' if row['equal'] else 'NO'})")
        if row := found.get("resume", {}).get(sharding):
            words = f"{sharding}: killed in step {found['resume']['killed_at_step']} and resumed from "
            bits = "yes" if row["same_bits"] else "NO"
            lines.append(
                f"{words}{row['resumed_from_step']}, the weights of the unbroken run to the bit: {bits}"
            )
    text = "\n".join(f"- {line}" for line in lines)
    if rows := found.get("scaling", {}).get("rows"):
        cells = []
        for row in rows:
            speed = [f"{row['milliseconds']:.1f} ms", f"{row['images_per_second']:,.0f}"]
            speed.append(f"{row['efficiency']:.0%}")
            cells.append([row["sharding"], str(row["ranks"]), *speed, f"{row['peak_GiB']:.1f} GiB"])
        header = ["network", "ranks", "a step", "images a second", "efficiency", "memory"]
        text += f"\n\n{found['scaling']['images_a_rank']} images a rank, bfloat16:\n\n{table(header, cells)}"
    for row in found.get("data", {}).get("rows", []):
        text += f"\n\nDALI on {row['ranks']} ranks: {row['images_per_second']:,.0f} PNG images a second."
    return text


def summary(results: dict) -> str:
    """The README's sentence, of N = 16."""
    info = next(info for info in step_rows(results) if info["row"] == STEP)
    seconds = info.get("compile_seconds", 0)
    said = [
        ("over_naive", "{} times faster than Algorithm 1 in float32"),
        ("over_naive_same_dtype", "{} times in bfloat16"),
        ("over_nvlabs", "{} times faster than NVIDIA's network and loop in float16 at as many evaluations"),
        ("over_compile", f"{{}} times faster than `torch.compile` after its {seconds:.0f} s"),
        ("over_floor", "{} times its floor"),
    ]
    ratios = ", ".join(text.format(f"{info[key]:.2f}") for key, text in said if key in info)
    processor, own = info["machine"]["processor"].removeprefix("NVIDIA "), info["milliseconds"]["ours"]
    text = f"On one {processor}, EDM2-S's step (64x64, N=16, K=3, bfloat16) takes {own:.1f} ms: {ratios} "
    text += "([docs/benchmarks-gpu.md](docs/benchmarks-gpu.md))."
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


BLOCKS: dict[str, Callable[[dict], str]] = {
    "step": step_table,
    "others": other_rows,
    "profile": profile_table,
    "kernels": kernel_table,
    "bytes": bytes_table,
    "sampler": sampler_table,
    "ranks": ranks_table,
    "summary": summary,
}


def with_blocks(text: str, results: dict) -> str:
    """A page with what stands between its marks made again."""

    def made(match: re.Match) -> str:
        return f"{match[1]}\n{BLOCKS[match[2]](results)}\n{match[3]}"

    return re.sub(r"(<!-- gpu:(\w+) -->)\n.*?\n?(<!-- end -->)", made, text, flags=re.DOTALL)


def merged(kept: dict, rows: Path | None, **others: Path | None) -> dict:
    """The kept results with those of a new run in place of the same kind's old ones."""
    results = dict(kept)
    if rows is not None:
        latest = {}
        for line in rows.read_text().splitlines():
            record = json.loads(line)
            latest[record["fullname"]] = record
        for kind in ("step", "sampler"):
            found = [r for r in latest.values() if r["extra_info"]["row"].startswith(f"{kind}-gpu")]
            results |= {kind: found} if found else {}
        if not any(record["extra_info"]["row"] == STEP for record in results["step"]):
            raise SystemExit(
                f"{rows} has steps, but no row {STEP} (N = 16), which README.md's sentence is of."
            )
    for kind, path in others.items():
        if path is not None:
            results[kind] = json.loads(path.read_text())
    return results


def main(arguments: Sequence[str] | None = None, kept: Path = RESULTS, pages: Sequence[Path] = PAGES) -> None:
    parser = argparse.ArgumentParser(description="Write a GPU's figures into the documents.")
    parser.add_argument("--rows", type=Path, help="file that --rows of the benchmarks wrote")
    parser.add_argument("--profile", type=Path, help="file that profile_step.py wrote")
    parser.add_argument("--counted", type=Path, help="file that count_step.py wrote")
    parser.add_argument("--ranks", type=Path, help="file that multi_gpu.sh wrote")
    args = parser.parse_args(arguments)
    files = {kind: getattr(args, kind) for kind in ("profile", "counted", "ranks")}
    results = merged(json.loads(kept.read_text()), args.rows, **files)
    kept.write_text(json.dumps(results, indent=1) + "\n")
    for page in pages:
        page.write_text(with_blocks(page.read_text(), results))


if __name__ == "__main__":
    main()
