"""Options, the suite's fixture, and the table that is printed last."""

import statistics
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import machine
import report

from mclr_fast.runtime.host_memory import keep_freed_memory

keep_freed_memory()  # for all that is compared, as the doors do

RECORDS = pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption(
        "--quick", action="store_true", help="small shapes, few rounds: to see that the benchmarks run"
    )


@pytest.fixture(scope="session", autouse=True)
def _fresh_compiler_cache():
    """What torch.compile takes is measured, so nothing may be left from an earlier run."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
        yield


class Suite:
    """What every benchmark gets: the options, the machine's figures, and where results go."""

    def __init__(self, config):
        self.quick = config.getoption("--quick")
        self.backend = "eager" if self.quick else "inductor"
        self.machine = machine.measure(self.quick)
        self.records = config.stash.setdefault(RECORDS, [])

    def rounds(self, count):
        return 2 if self.quick else count

    def record(self, benchmark, ratios):
        """Ratios of each round -> median and range in extra_info, and a line of the summary."""
        info = benchmark.extra_info
        info["ranges"] = {}
        for key, values in ratios.items():
            info[key] = statistics.median(values)
            info["ranges"][key] = [min(values), max(values)]
        self.records.append({"name": benchmark.name, "extra_info": dict(info)})


@pytest.fixture(scope="session")
def suite(request):
    return Suite(request.config)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    records = config.stash.get(RECORDS, [])
    if records:
        terminalreporter.section("against the baselines")
        terminalreporter.write_line(report.text_table(records))
        if config.getoption("--quick"):
            terminalreporter.write_line("--quick: these sizes and rounds say nothing about speed")
