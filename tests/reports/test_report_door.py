"""The door `report`: where the page is, and what is no run."""

import pytest
from run_folders import make_run, make_summary

from mclr_fast.report import main


def test_door_writes_the_page(tmp_path, capsys):
    make_run(tmp_path, make_summary(recipe="<b>", rows=[]), log=False)
    main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "<b>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no summary.json"),
        ("{", "not JSON"),
        ("[]", "not a run's summary"),
        ('{"recipe": "a", "objective": "mclr", "rows": [{}]}', "not a run's summary"),
        ('{"recipe": "a", "objective": "mclr", "rows": [], "format": 3}', "upgrade mclr_fast"),
    ],
)
def test_door_refuses_a_folder_without_a_summary_it_knows(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error and error.count("\n") == 1


def test_a_failed_write_leaves_the_old_page_and_one_line(tmp_path, capsys):
    make_run(tmp_path, make_summary(rows=[]), log=False)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    assert "cannot write" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "report.html"}
