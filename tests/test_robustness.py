"""The page of docs/robustness.md and the marks it is made from."""

import pytest
import robustness

FILE = '''"""Doc."""
import pytest
pytestmark = pytest.mark.robust("pixels")

def test_a_grey_png():
    """It keeps
    its levels.

    More.
    """

@pytest.mark.robust("archives")
@pytest.mark.parametrize("name", ["a|b"])
def test_the_archive_s_name(name):
    """A | is escaped."""

def helper():
    """No test."""
'''


@pytest.fixture
def written(tmp_path, monkeypatch):
    """written(text): the lines of a test file."""
    monkeypatch.setattr(robustness, "TESTS", tmp_path)

    def lines(text):
        (tmp_path / "test_it.py").write_text(text)
        return robustness.lines()

    return lines


def test_a_test_s_own_mark_goes_before_its_file_s(written):
    assert [(line.kind, line.says) for line in written(FILE)] == [
        ("pixels", "It keeps its levels."),
        ("archives", "A | is escaped."),
    ]


def test_the_page_has_a_row_a_test(written):
    page = robustness.page(written(FILE))
    assert "| [a grey png](../tests/test_it.py) | It keeps its levels. |\n" in page
    assert "| [the archive's name](../tests/test_it.py) | A \\| is escaped. |\n" in page


def test_an_unknown_kind_is_refused(written):
    with pytest.raises(ValueError, match=r"test_a_grey_png is robust\('pixel'\); kinds: classes, pixels"):
        written(FILE.replace('"pixels"', '"pixel"'))


def test_the_page_is_what_the_tests_say():
    page = (robustness.TESTS.parent / "docs/robustness.md").read_text()
    assert page == robustness.page(robustness.lines()), "python tests/robustness.py > docs/robustness.md"


def test_every_marked_test_says_what_happens():
    silent = [f"{line.file}: {line.name}" for line in robustness.lines() if not line.says]
    assert not silent, "a docstring says what happens"
