"""What the GPU kernels compile to, and what they move, without a GPU.

Every kernel is compiled ahead of time at the shapes of `shapes.NETWORKS`, for each architecture; registers,
spills, shared memory and widths of accesses are read from the machine code; bytes are counted while the
kernels run under Triton's interpreter or the tests' host shim; times are bounds, not measurements.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from . import compile_cuda, compile_triton, count_bytes, machine_code
from .machine_code import Code
from .shapes import NETWORKS, Network, calls, weights

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
H100_COPY = 3.0e12  # bytes a second, measured


class AuditRow(NamedTuple):
    """One distinct kernel on one architecture.

    Attributes:
        op, kernel: names; shape: the largest it runs at; num_calls: distinct calls it serves.
        architecture: "sm_90"; missing: why nothing else is known, else empty.
        registers: a thread's; spills: must be 0; shared: bytes a block.
        widest: bytes of the widest global access; wide_share: of the bytes of all accesses in the code.
        bytes_over_least: bytes moved, counted at a small shape, over the op's lower bound; NaN: not counted.
        least_bytes: the op's lower bound at `shape`; roofline_us: that over an H100's copy bandwidth.
    """

    op: str
    kernel: str
    architecture: str
    shape: str = ""
    num_calls: int = 0
    missing: str = ""
    registers: int = 0
    spills: int = 0
    shared: int = 0
    widest: int = 0
    wide_share: float = 0.0
    bytes_over_least: float = math.nan
    least_bytes: int = 0

    @property
    def roofline_us(self) -> float:
        """Microseconds that the lower bound takes on an H100."""
        return self.least_bytes / H100_COPY * 1e6


def rows(
    archs: Sequence[str] = ARCHITECTURES, networks: Iterable[Network] = NETWORKS, count: bool = True
) -> list[AuditRow]:
    """The audit: every kernel of `networks`' training step for each of `archs`.

    count=False leaves the bytes uncounted. A tool that is not here gives a row that says so. Results are
    kept for the life of the process; Triton also keeps compiled kernels in its own cache on disk.
    """
    networks = list(networks)
    found = []
    for arch in archs:
        found += _triton_rows(int(arch.removeprefix("sm_")), networks, count)
        found += _cuda_rows(int(arch.removeprefix("sm_")), networks, count)
    return found


def _widths(code: Code) -> dict[str, int | float]:
    total = sum(width * count for width, count in code.accesses.items())
    wide = sum(width * count for width, count in code.accesses.items() if width >= 16)
    return dict(widest=max(code.accesses, default=0), wide_share=wide / total if total else 0.0)


def _triton_rows(arch: int, networks: list[Network], count: bool) -> list[AuditRow]:
    name = f"sm_{arch}"
    if reason := compile_triton.missing() or machine_code.missing():
        return [AuditRow("(all of Triton's)", "", name, missing=reason)]
    ratios = count_bytes.counted() if count else {}
    all_calls = [call for network in networks for call in calls(network)]
    return [
        AuditRow(
            special.op,
            f"{special.kernel.strip('_')} x{special.num_warps}",
            name,
            special.call.shapes,
            special.num_calls,
            registers=code.registers,
            spills=code.spills,
            shared=code.shared,
            bytes_over_least=ratios.get((special.op, special.call.function), math.nan)
            if special.least_bytes
            else math.nan,
            least_bytes=special.least_bytes,
            **_widths(code),
        )
        for special, code in compile_triton.compiled(all_calls, arch)
    ]


def _cuda_rows(arch: int, networks: list[Network], count: bool) -> list[AuditRow]:
    name = f"sm_{arch}"
    if reason := compile_cuda.missing() or machine_code.missing():
        return [AuditRow(op, "", name, missing=reason) for op in compile_cuda.OPS]
    ratios = count_bytes.counted_cuda() if count else {}
    largest = max(networks, key=lambda network: network.width)
    numel = sum(math.prod(shape) for shape in weights(largest))
    # float32 weights to bfloat16; backward also reads the gradient; Adam with two averages.
    bytes_a_number = {"forward_kernel": 6, "backward_kernel": 10, "adam_kernel": 44}
    found = []
    for op, codes in compile_cuda.compiled(arch).items():
        for code in codes:
            kernel = code.name.split(" ")[0]
            function = {"adam_kernel": "step"}.get(kernel, kernel.removesuffix("_kernel"))
            found.append(
                AuditRow(
                    op,
                    code.name,
                    name,
                    f"all weights of {largest.name}",
                    len(networks),
                    registers=code.registers,
                    spills=code.spills,
                    shared=code.shared,
                    bytes_over_least=ratios.get((op, function), math.nan),
                    least_bytes=numel * bytes_a_number.get(kernel, 0),
                    **_widths(code),
                )
            )
    return found


def table(rows: Iterable[AuditRow]) -> str:
    """The rows as an aligned Markdown table, one line a kernel: numbers that differ between architectures
    stand side by side, in the order of the header."""
    rows = list(rows)
    archs = list(dict.fromkeys(row.architecture for row in rows))
    lines: dict[tuple, list[AuditRow]] = {}
    seen: Counter[tuple] = Counter()
    for row in rows:
        key = (row.op, row.kernel, row.shape, row.missing)
        seen[key, row.architecture] += 1
        lines.setdefault((*key, seen[key, row.architecture]), []).append(row)
    header = ("op", "kernel", "largest shape", "calls", "registers", "spills", "shared", "widest", "wide",
              "bytes/least", "least MB", "H100 us")  # fmt: skip
    cells = [header, ["-" * len(text) for text in header]]
    for (op, kernel, shape, missing, _), same in lines.items():
        if missing:
            cells.append((op, f"not audited: {missing}", *[""] * (len(header) - 2)))
            continue
        first = same[0]
        cells.append((
            op, kernel, shape, str(first.num_calls),
            _each(str(row.registers) for row in same), _each(str(row.spills) for row in same),
            _each(str(row.shared) for row in same), _each(str(row.widest) for row in same),
            _each(f"{row.wide_share:.0%}" for row in same),
            "" if math.isnan(first.bytes_over_least) else f"{first.bytes_over_least:.2f}",
            f"{first.least_bytes / 1e6:.1f}" if first.least_bytes else "",
            f"{first.roofline_us:.1f}" if first.least_bytes else "",
        ))  # fmt: skip
    widths = [
        max(len(line[i]) for line in cells if i != 1 or "not audited" not in line[1]) for i in range(12)
    ]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([f"Kernels for {', '.join(archs)} (a/b/c: in this order where they differ).", "", *text])


def _each(values: Iterable[str]) -> str:
    values = list(values)
    return values[0] if len(set(values)) == 1 else "/".join(values)
