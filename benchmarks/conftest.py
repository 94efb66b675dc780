"""Options, the suite's fixture, and the table that is printed last."""

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report
from suite import Suite

from mclr_fast.runtime.host_memory import keep_freed_memory

keep_freed_memory()  # for all that is compared, as the doors do

SUITE = pytest.StashKey[Suite]()


def pytest_addoption(parser):
    parser.addoption(
        "--quick", action="store_true", help="small shapes, few rounds: to see that the benchmarks run"
    )
    parser.addoption("--rows", type=Path, help="file that gets every result as it comes, a line of JSON each")
    parser.addoption(
        "--parts", type=lambda text: text.split(","), help="of bench_step_gpu's rows: floor,nvlabs,plain,..."
    )


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
