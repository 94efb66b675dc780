"""A recipe in a user's own Python file."""

import pytest

from mclr_fast import train
from mclr_fast.recipes import get_recipe

MINE = '''
"""My run."""
from dataclasses import replace

from mclr_fast.config import RunConfig
from mclr_fast.recipes import get_recipe


def run() -> RunConfig:
    """The default, shorter and slower."""
    made = get_recipe("mnist16-base")
    net = {**made.net, "model_channels": 8}
    return replace(made, net=net, train=replace(made.train, lr=0.125, duration=64, batch_size=32))


def other() -> RunConfig:
    """Another of the file."""
    return replace(run(), seed=7)


def broken():
    return missing_name


def number():
    return 3


def needs(this):
    return run()
'''
QUIET = ["--eval-every", "0", "--control", "none", "--device", "cpu"]


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """mine.py, in the folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.fixture
def refused(capsys):
    """refused(*options): the one line that `train` ends with."""

    def call(*options):
        assert train.main([*options, *QUIET]) == 1
        err = capsys.readouterr().err
        (line,) = (line for line in err.splitlines() if line.startswith("error:"))
        assert "Traceback" not in err
        return line

    return call


def test_its_run_is_named_by_the_file_and_its_options_are_overridden():
    run = train.parse(["--recipe", "./mine.py:run", "--lr", "0.5"])
    assert (run.recipe, str(run.folder), run.recipe_file) == ("mine", "runs/mine", "./mine.py:run")
    assert (run.train.lr, run.train.batch_size) == (0.5, 32)
    other = get_recipe("mine.py:other")
    assert (other.recipe, other.seed, other.train.lr) == ("mine-other", 7, 0.125)


def test_a_module_beside_it_can_be_imported(tmp_path):
    (tmp_path / "numbers_of_mine.py").write_text("LR = 0.25")
    (tmp_path / "apart.py").write_text(
        MINE.replace("lr=0.125", "lr=LR").replace("\n\n\n", "\nfrom numbers_of_mine import LR\n\n\n", 1)
    )
    assert get_recipe("apart.py:run").train.lr == 0.25


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py", "--recipe mine.py names no function: write mine.py:run."),
        ("mine.py:", "names no function: write mine.py:run."),
        ("mine.py:rn", "--recipe mine.py:rn: the file has no function 'rn'; nearest: run"),
        ("mines.py:run", "there is no file mines.py; near it: mine.py."),
        ("mine.py:broken", "mine.py:22: NameError: name 'missing_name' is not defined"),
        ("mine.py:number", "number returned a int, not a mclr_fast.config.RunConfig."),
        ("mine.py:needs", "mine.py: TypeError: needs() missing 1 required positional argument: 'this'"),
        ("mine.py:RunConfig", "TypeError"),
    ],
)
@pytest.mark.robust("arguments")
def test_its_mistakes_are_one_line(refused, name, words):
    """With file and line where the mistake is in it, and the functions or files that may be meant."""
    assert words in refused("--recipe", name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def run(:\n", "bad.py:1: SyntaxError: "),
        ("import no_such_module\n", "bad.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\n1 / 0\n", "bad.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "bad.py:1: SystemExit: 3"),
    ],
)
@pytest.mark.robust("arguments")
def test_a_file_that_cannot_be_imported_is_one_line(refused, tmp_path, text, words):
    """With the line of the file that raised."""
    (tmp_path / "bad.py").write_text(text)
    assert words in refused("--recipe", "bad.py:run")


@pytest.mark.robust("identity")
def test_a_run_goes_on_with_the_file_it_began_with(photos_run, refused, mine, capsys):
    """A file that was changed meanwhile is refused, wherever; the same at another path is gone on with."""
    assert photos_run("./mine.py:run") == 0
    assert photos_run("./mine.py:run") == 0
    (mine.parent / "moved").mkdir()
    (mine.parent / "moved" / "mine.py").write_text(MINE)
    capsys.readouterr()
    assert photos_run("moved/mine.py:run") == 0
    assert (
        "--recipe moved/mine.py:run holds what the run began with, ./mine.py:run" in capsys.readouterr().out
    )
    mine.write_text(MINE + "\n# another thought\n")
    assert photos_run("./mine.py:run") == 1
    line = capsys.readouterr().err
    assert "recipe_file: './mine.py:run' was " in line and "of other bytes, contents" in line


@pytest.fixture
def photos_run(tmp_path):
    """photos_run(recipe): the run of a recipe on a tiny data set."""
    import numpy as np
    from zips import write_zip

    images = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), dtype=np.uint8)
    write_zip(tmp_path / "photos.zip", images, np.arange(8) % 2)
    return lambda name: train.main(["--recipe", name, "--data", "photos.zip", *QUIET])
