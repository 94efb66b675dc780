"""A report that fails costs its page, not the run."""

import pytest

from mclr_fast.experiments import run as run_module
from mclr_fast.experiments.reporting import report
from mclr_fast.report import main
from mclr_fast.runtime.process.ranks import Ranks


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'matplotlib_inline'"), "No module named 'matplotlib_inline'"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("Can not load\nface"), "Can not load face"),
    ],
)
@pytest.mark.robust("talking")
def test_a_report_that_fails_is_a_line_with_the_command_that_makes_it(tmp_path, capsys, error, said):
    """A report that fails is one line: why, and the command that makes it again."""

    def failing(outdir):
        raise error

    report(failing, tmp_path, Ranks("cpu"))
    assert capsys.readouterr().out == (
        f"warning: no report ({said}). The run itself is whole: python -m mclr_fast.report {tmp_path} "
        "writes it.\n"
    )


@pytest.mark.robust("talking")
def test_a_run_whose_report_fails_is_whole(tiny_run, files, monkeypatch, capsys):
    """A run whose figures cannot be drawn ends well, with its summary, from which the report is made."""
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_report", lambda outdir: 1 / 0)
        tiny_run("run").execute()
    assert "warning: no report (division by zero). The run itself is whole: python -m mclr_fast.report " in (
        capsys.readouterr().out
    )
    assert not (files / "run" / "report.html").exists()
    main([str(files / "run")])
    assert (files / "run" / "report.html").exists()


@pytest.mark.robust("talking")
def test_other_ranks_write_none(tmp_path, capsys):
    """Of several ranks the first writes the report."""
    ranks = Ranks("cpu")
    ranks.is_main = False
    report(lambda outdir: 1 / 0, tmp_path, ranks)
    assert capsys.readouterr().out == ""
