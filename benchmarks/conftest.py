"""Options, the suite's fixture, and the table that is printed last."""

import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import history
import interleave
import report
from suite import Suite

from mclr_fast.runtime.device.host_memory import keep_freed_memory

SUITE = pytest.StashKey[Suite]()


def pytest_addoption(parser):
    parser.addoption(
        "--quick", action="store_true", help="small shapes, few rounds: to see that the benchmarks run"
    )
    parser.addoption("--rows", type=Path, help="file that gets every result as it comes, a line of JSON each")
    parser.addoption(
        "--parts", type=lambda text: text.split(","), help="of bench_step_gpu's rows: floor,nvlabs,plain,..."
    )
    parser.addoption(
        "--compare",
        action="store_true",
        help="say which rows are slower than those kept of this kind of machine",
    )
    parser.addoption("--keep", action="store_true", help="keep this run's times in benchmarks/baselines")
    parser.addoption(
        "--cpu-time",
        action="store_true",
        help="times are the process's CPU time: for OMP_NUM_THREADS=1 on a machine that others use too",
    )
    parser.addoption(
        "--plain-malloc",
        action="store_true",
        help="leave malloc as a program of one's own has it; without, what is freed is kept for all that is "
        "compared, as the doors keep it",
    )


def pytest_configure(config):
    if config.getoption("--cpu-time"):
        interleave.clock = time.process_time
    if not config.getoption("--plain-malloc"):
        keep_freed_memory()
    for option, other in product(("--compare", "--keep"), ("--quick", "--plain-malloc")):
        if config.getoption(other) and config.getoption(option):
            raise pytest.UsageError(f"{option}: the times of {other} are not such; leave one of the two out.")


@pytest.fixture(scope="session", autouse=True)
def _fresh_compiler_cache():
    """What torch.compile takes is measured, so nothing may be left from an earlier run."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
        yield


@pytest.fixture(scope="session")
def suite(request):
    option = request.config.getoption
    made = Suite(option("--quick"), option("--parts"), option("--rows"))
    request.config.stash[SUITE] = made
    return made


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    suite = config.stash.get(SUITE, None)
    if suite and suite.records:
        terminalreporter.section("against the baselines")
        terminalreporter.write_line(report.text_table(suite.records))
        if config.getoption("--quick"):
            terminalreporter.write_line("--quick: these sizes and rounds say nothing about speed")
        if config.getoption("--compare"):
            terminalreporter.section("against what was kept")
            terminalreporter.write_line(history.text(suite.records))
        if config.getoption("--keep"):
            paths = (
                ", ".join(str(path) for path in history.keep(suite.records)) or "nothing: no row was timed"
            )
            terminalreporter.write_line(f"kept: {paths}")
