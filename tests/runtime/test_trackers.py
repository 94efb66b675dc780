"""TensorBoard and Weights & Biases by stand-ins: who is told what, once each, in order, over resumes."""

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from run_log import lines

from mclr_fast.experiments import run as run_module
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.trackers import TensorBoard, WeightsAndBiases


class Server:
    """Stands in for wandb and for what it talks to: one history a run id; offline it knows no run."""

    def __init__(self):
        self.histories, self.metrics, self.inits, self.finished = {}, [], [], []
        self.offline, self.refuses = False, None

    def init(self, **arguments):
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.inits.append(arguments)
        history = self.histories.setdefault(arguments["id"], [])
        server = self

        class Run:
            starting_step = history[-1][0] + 1 if history and not server.offline else 0

            def define_metric(self, name, step_metric):
                server.metrics.append((name, step_metric))

            def log(self, values, step):
                assert not history or step > history[-1][0] or server.offline, "stepped backwards"
                history.append((step, values))

            def finish(self, exit_code):
                server.finished.append(exit_code)

        return Run()


@pytest.fixture
def server(monkeypatch):
    made = Server()
    module = types.ModuleType("wandb")
    module.init = made.init
    module.Image = lambda picture: ("image", picture.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made


@pytest.fixture
def board(monkeypatch):
    """What SummaryWriter was told: (folder name, tag, value, step), and (folder name, purge_step)."""
    told = []

    class SummaryWriter:
        def __init__(self, log_dir, purge_step):
            self.name = Path(log_dir).name
            told.append((self.name, purge_step))

        def add_scalar(self, tag, value, step):
            told.append((self.name, tag, value, step))

        def add_image(self, tag, picture, step, dataformats):
            told.append((self.name, tag, picture.shape, dataformats, step))

        def close(self):
            told.append((self.name, "closed"))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return told


@pytest.fixture
def run(tiny_run, monkeypatch):
    """run(outdir, stop_after=0, **options of the run): tiny_run with these."""

    def make(outdir, stop_after=0, **options):
        made = run_module.Run.__init__

        def with_options(self, config, ranks, stop):
            made(self, dataclasses.replace(config, **options), ranks, stop)

        with monkeypatch.context() as patch:
            patch.setattr(run_module.Run, "__init__", with_options)
            return tiny_run(outdir, stop_after=stop_after)

    return make


def test_wandb_gets_every_line_once(run, files, server):
    run("run", wandb="digits").execute()
    (run_id,) = server.histories
    assert json.loads((files / "run" / "wandb.json").read_text()) == {"id": run_id, "project": "digits"}
    log, history = lines(files / "run"), server.histories[run_id]
    assert [step for step, _ in history] == [line["images_seen"] for line in log] == list(range(12, 84, 12))
    for line, (_, values) in zip(log, history, strict=True):
        expected = {f"mclr/{name}": value for name, value in line.items() if name != "arm"}
        assert values == expected
    assert server.metrics == [("mclr/*", "mclr/images_seen")]
    said = server.inits[0]
    assert (said["project"], said["resume"], said["name"], said["group"]) == (
        "digits",
        "allow",
        "run",
        "tiny",
    )
    assert said["config"]["train.lr"] == 1e-3
    assert server.finished == [0]


def test_a_resumed_run_is_the_same_run_and_never_steps_backwards(run, files, server):
    with pytest.raises(Interrupted):
        run("run", stop_after=3, wandb="digits").execute()
    run("run", wandb="digits").execute()
    assert [said["id"] for said in server.inits] == [server.inits[0]["id"]] * 2
    (history,) = server.histories.values()
    assert [step for step, _ in history] == list(range(12, 84, 12))
    assert server.finished == [0, 0]
    run("run", wandb="digits").execute()  # once more: nothing is left to do
    assert len(history) == 6


@pytest.mark.parametrize("offline", [False, True])
def test_lines_that_come_again_after_a_kill_are_not_sent_again(tmp_path, server, offline):
    """log.jsonl and W&B are ahead of the state that the next process begins with."""
    server.offline = offline

    def process(start, stop, lost=0):
        log = RunLog(tmp_path / "log.jsonl")
        log.trackers = [WeightsAndBiases("p", tmp_path, "g", {}, log.lines())]
        log.rewind("mclr", start)
        for images in range(start + 10, stop + 1, 10):
            log.write({"arm": "mclr", "images_seen": images, "loss": 1 / images})
        (history,) = server.histories.values()
        del history[len(history) - lost :]  # had not arrived when the process was killed
        return history

    process(0, 50)
    history = process(20, 70)
    assert [step for step, _ in history] == [10, 20, 30, 40, 50, 60, 70]
    process(70, 100, lost=2)
    process(70, 120)
    expected = (
        [80, 90, 100, 110, 120] if not offline else [80, 110, 120]
    )  # offline nobody knows what was lost
    assert [step for step, _ in history[7:]] == expected


def test_arms_follow_each_other_and_evaluations_come_between(tmp_path, server):
    def process():
        log = RunLog(tmp_path / "log.jsonl")
        log.trackers = [WeightsAndBiases("p", tmp_path, "g", {}, log.lines())]
        return log

    log = process()
    for images in (10, 20):
        log.write({"arm": "denoising", "images_seen": images, "loss": 1.0})
    log.evaluated({"name": "denoising", "images_seen": 20, "fd": 0.5, "recall": None})
    log.write({"arm": "mclr", "images_seen": 10, "loss": 1.0})
    log.evaluated({"name": "mclr", "images_seen": 10, "fd": 0.4})
    log = process()
    log.rewind("denoising", 20)
    log.evaluated({"name": "denoising", "images_seen": 20, "fd": 0.5})  # kept, and given again
    log.rewind("mclr", 10)
    log.evaluated({"name": "mclr", "images_seen": 10, "fd": 0.4})
    log.write({"arm": "mclr", "images_seen": 20, "loss": 1.0})
    (history,) = server.histories.values()
    assert [step for step, _ in history] == [10, 20, 21, 30, 31, 40]
    assert history[2][1] == {"denoising/images_seen": 20, "denoising/fd": 0.5}
    assert history[4][1] == {"mclr/images_seen": 10, "mclr/fd": 0.4}
    assert [name for name, _ in server.metrics] == ["denoising/*", "mclr/*", "mclr/*"]


def test_tensorboard_draws_an_arm_a_run(run, files, board):
    run("run", tensorboard=True).execute()
    log = lines(files / "run")
    assert [told[3] for told in board if told[1] == "loss"] == [line["images_seen"] for line in log]
    assert ("mclr", "loss", log[0]["loss"], 12) in board and board[-1] == ("mclr", "closed")
    assert {told[1] for told in board if len(told) == 4} == log[0].keys() - {"arm", "images_seen"}


PICTURE = np.zeros((8, 15, 1), np.uint8)


def test_tensorboard_shows_samples_with_their_evaluation(tmp_path, board):
    log = RunLog(tmp_path / "log.jsonl")
    log.trackers = [TensorBoard(tmp_path / "tensorboard")]
    log.evaluated({"name": "mclr", "images_seen": 20, "fd": 0.4}, PICTURE)
    assert board[1:] == [("mclr", "fd", 0.4, 20), ("mclr", "samples", (8, 15, 1), "HWC", 20)]


def test_wandb_shows_samples_with_their_evaluation(tmp_path, server):
    """In one step with the numbers, as each step is taken once."""
    log = RunLog(tmp_path / "log.jsonl")
    log.trackers = [WeightsAndBiases("p", tmp_path, "g", {}, log.lines())]
    log.write({"arm": "mclr", "images_seen": 20, "loss": 1.0})
    log.evaluated({"name": "mclr", "images_seen": 20, "fd": 0.4}, PICTURE)
    (history,) = server.histories.values()
    shown = {"mclr/images_seen": 20, "mclr/fd": 0.4, "mclr/samples": ("image", (8, 15, 1))}
    assert history[1:] == [(21, shown)]


def test_tensorboard_hides_what_comes_again(tmp_path, board):
    log = RunLog(tmp_path / "log.jsonl")
    log.trackers = [TensorBoard(tmp_path / "tensorboard")]
    log.write({"arm": "mclr", "images_seen": 10, "loss": 2.0})
    log.trackers = [TensorBoard(tmp_path / "tensorboard")]
    log.rewind("denoising", 30)
    log.rewind("mclr", 10)
    log.write({"arm": "mclr", "images_seen": 20, "loss": 1.0})
    log.evaluated({"name": "mclr", "images_seen": 20, "fd": 0.4})
    assert board[2:] == [("denoising", 31), ("mclr", 11), ("mclr", "loss", 1.0, 20), ("mclr", "fd", 0.4, 20)]


@pytest.mark.parametrize(
    ("options", "module", "words"),
    [
        ({"wandb": "p"}, "wandb", r"--wandb needs the package wandb \(.*\): pip install 'mclr_fast\[logs\]'"),
        ({"tensorboard": True}, "torch.utils.tensorboard", r"--tensorboard needs the package tensorboard \("),
    ],
)
def test_missing_is_one_clear_line_before_the_run(run, files, monkeypatch, options, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunError, match=words) as error:
        run("run", **options)
    assert "\n" not in str(error.value) and not (files / "run").exists()


def test_a_folder_of_wandbs_runs_is_not_wandb(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(RunError, match=r"--wandb needs the package wandb \(.*init"):
        run("run", wandb="p")


def test_wandb_that_refuses_is_one_clear_line_before_the_run(run, server):
    server.refuses = "No API key configured"
    with pytest.raises(RunError, match=r"--wandb p: No API key configured\. Log in with `wandb login`"):
        run("run", wandb="p")


def test_a_run_that_fails_is_told_so(run, server, monkeypatch):
    failing = run("run", wandb="p")
    monkeypatch.setattr(failing, "_execute", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.execute()
    assert server.finished == [1]


def test_nobody_is_asked_unless_asked_for(run, files, monkeypatch):
    for module in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    run("run").execute()
    assert not (files / "run" / "wandb.json").exists()


def test_only_rank_0_tells(run, server, monkeypatch):
    before = Ranks.__init__

    def second_of_two(self, device):
        before(self, device)
        self.is_main = False

    monkeypatch.setattr(Ranks, "__init__", second_of_two)
    other = run("run", wandb="p")
    assert other.log.trackers == [] and server.inits == []


@pytest.mark.parametrize("name", ["rewind", "log", "evaluated", "close"])
@pytest.mark.robust("talking")
def test_a_tracker_that_raises_is_told_no_more_and_the_run_goes_on(tmp_path, capsys, name):
    """Whatever a tracker raises, once a warning says so the run goes on, with all its lines in log.jsonl."""

    class Broken:
        def __getattr__(self, called):
            if called == name:
                raise OSError("the\nserver is gone")
            return lambda *_: None

    with RunLog(tmp_path / "log.jsonl") as log:
        log.trackers = [Broken()]
        log.write({"arm": "mclr", "images_seen": 10, "loss": 2.0})
        log.rewind("mclr", 10)
        log.evaluated({"name": "mclr", "images_seen": 10, "fd": 0.4})
        log.write({"arm": "mclr", "images_seen": 20, "loss": 1.0})
    assert [line["images_seen"] for line in log.lines()] == [10, 20] and log.trackers == []
    said = capsys.readouterr().out
    assert said.startswith("warning: Broken fails (the server is gone): the run goes on without it, and ")
    assert said.count("warning") == said.count("\n") == 1


@pytest.mark.robust("talking")
def test_a_tracker_that_fails_leaves_the_others_alone(tmp_path, board):
    """TensorBoard is told all that W&B could not be told."""

    class Full:
        def __getattr__(self, called):
            raise MemoryError

    log = RunLog(tmp_path / "log.jsonl")
    log.trackers = [Full(), TensorBoard(tmp_path / "tensorboard")]
    for images in (10, 20):
        log.write({"arm": "mclr", "images_seen": images, "loss": 1.0})
    assert board[1:] == [("mclr", "loss", 1.0, 10), ("mclr", "loss", 1.0, 20)]


@pytest.mark.parametrize(
    "raised", [TypeError("Descriptors cannot\nbe created directly."), SystemError("initialization failed")]
)
@pytest.mark.robust("talking")
def test_a_broken_package_is_one_clear_line_before_the_run(run, files, monkeypatch, raised):
    """A tensorboard that does not fit its protobuf is refused in one line before the run, where asked for."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torch.utils.tensorboard":
                raise raised

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    line = f"--tensorboard needs the package tensorboard ({' '.join(str(raised).split())}): pip install"
    with pytest.raises(RunError) as error:
        run("run", tensorboard=True)
    assert str(error.value).startswith(line) and not (files / "run").exists()
