"""--help of every door: each option is explained, and each number has a unit or a range."""

import importlib
import re
from pathlib import Path

import pytest

import mclr_fast

PACKAGE = Path(mclr_fast.__file__).parent
DOORS = sorted(f"mclr_fast.{p.stem}" for p in PACKAGE.glob("*.py") if "def main(" in p.read_text())
DOORS += ["mclr_fast.theory.__main__"]
OPTION = re.compile(r"^ {0,2}(-{1,2}[a-zA-Z].*?|[A-Z][A-Z_]+)(?: {2,}(.*))?$")
MEASURES = {  # number -> the words in which its help says what it counts or measures, or where it lies
    "--S-churn": "Noise added on the way, at least 0, spread over the steps",
    "--S-max": "Highest noise level at which noise is added",
    "--S-min": "Lowest noise level at which noise is added",
    "--S-noise": "Factor on the added noise, above 0",
    "--P-mean": "Mean of ln sigma.",
    "--P-std": "Standard deviation of ln sigma.",
    "--alpha": "weight of the model's samples, above 0",
    "--batch-size": "N, images a step",
    "--best-share": "in (0, 1]",
    "--beta": "1/energy",
    "--betas": "decays a step, each in [0, 1)",
    "--best-cfg-scales": "under guidance (section 6.2)",
    "--dial": "--init (0) and the best model (1)",
    "--eval-samples": "Samples an evaluation draws.",
    "--final-samples": "0 = none.",
    "--gpu-tflops": "TFLOP/s that a GPU makes",
    "--cfg-scales": "EDM2's g, 1 = none",
    "--checkpoint-every": "Images between saves",
    "--class-level": "Depth of the folders that are the classes, 1 = the outermost",
    "--classifier-steps": "training steps of the noise-conditional classifier",
    "--dropout": "probability of the network, in [0, 1)",
    "--dsm-weight": "the share of denoising, at least 0",
    "--duration": "in images seen",
    "--ema": "std, in (0, 0.2886]",
    "--ema-beta": "decay a step, in [0, 1]",
    "--ema-snapshot-every": "images between snapshots",
    "--ema-stds": "relative widths, each in (0, 0.2886]",
    "--eta": "strength of the contrast, at least 0",
    "--eval-every": "Images between evaluations",
    "--first-seed": "sampling seeds are first_seed, first_seed + 1",
    "--gpu-memory-gib": "memory, in GiB",
    "--grid-noises": "Initial noises of the same-noise grid",
    "--guidance": "EDM2's guidance g against the net's own zero label vector; 1 = none",
    "--guidance-interval": "Noise levels between which guidance acts",
    "--guidance-weight": "w, the target's shift, in [0, 1)",
    "--images": "Images seen at which the average ends",
    "--keep-checkpoints": "States kept",
    "--label-dropout": "probability of no label, in [0, 1)",
    "--lambda-coef": "weight of the negatives, above 0",
    "--loader-threads": "Threads of a rank's loader",
    "--log-every": "Images between lines",
    "--lr": "Learning rate, at least 0",
    "--micro-batch": "Network evaluations a rank holds at once",
    "--milestone-every": "Images between models and sample grids",
    "--model-samples": "samples that are made of a model",
    "--neighbors": "k, the neighbours of precision and recall",
    "--noise-level": "mean and standard deviation of ln sigma, the latter above 0",
    "--num-negatives": "K, negatives an image",
    "--num-samples": "Samples an evaluation draws",
    "--num-steps": "Heun steps",
    "--patience": "so many evaluations without a better FD",
    "--proof-first-seed": "first sampling seed",
    "--proof-samples": "samples of the final judgement",
    "--proof-seeds": "Repeat the run with these seeds",
    "--ref-batches": "steps before the decay sets in",
    "--refresh-every": "images until the average replaces it",
    "--repeats": "Evaluations, each of the seeds after",
    "--resolution": "Side of the images, in pixels",
    "--rho": "Exponent that spaces the noise levels, above 0",
    "--sample-batch": "Images sampled at once",
    "--seed": "Seed of everything drawn",
    "--sigma-max": "noise level of the sampler; pixels lie in [-1, 1]",
    "--sigma-min": "noise level of the sampler; pixels lie in [-1, 1]",
    "--skip-bad-batches": "Minibatches that may be left out",
    "--std": "relative to the training so far, in (0, 0.2886]",
    "--stop-factor": "times its start",
    "--top-k": "of the so many likeliest",
    "--top-p": "make up so much of the probability",
    "--strength": "Strength of fine-tuning, in [0, 2]",
    "--table-minutes": "minutes after which",
    "--threads": "Threads that read",
    "--warmup-images": "warm-up, in images",
}


def options(door, capsys, monkeypatch):
    """What the door's --help says: signature -> explanation."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(door).main(["--help"])
    assert ended.value.code == 0
    found, signature = {}, None
    for line in capsys.readouterr().out.splitlines():
        boxed = re.match(r"^│ (.*?) *│$", line)
        text = boxed[1] if boxed else line
        if begins := OPTION.match(text):
            signature = begins[1]
            found[signature] = begins[2] or ""
        elif text.startswith("    ") and signature:
            found[signature] += " " + text.strip()
        else:
            signature = None
    texts = {s: re.sub(r"\((default|required|repeatable).*", "", help) for s, help in found.items()}
    return {signature: " ".join(text.split()) for signature, text in texts.items()}


def numbers(found):
    """Option -> explanation, of those that are numbers."""
    return {s.split()[0]: text for s, text in found.items() if re.search(r"\b(INT|FLOAT)\b", s)}


def test_all_doors_are_found():
    assert {"mclr_fast.train", "mclr_fast.sample", "mclr_fast.ema", "mclr_fast.doctor"} < set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_only_parses_builds_and_runs(door):
    source = Path(importlib.import_module(door).__file__)
    assert len(source.read_text().splitlines()) <= 100


@pytest.mark.parametrize("door", DOORS)
def test_every_option_is_explained(door, capsys, monkeypatch):
    found = options(door, capsys, monkeypatch)
    assert len(found) >= 2  # --help is one
    for signature, text in found.items():
        assert len(text) >= 10, f"{door}: {signature} is not explained: {text!r}"


@pytest.mark.parametrize("door", DOORS)
def test_every_number_has_a_unit_or_a_range(door, capsys, monkeypatch):
    for option, text in numbers(options(door, capsys, monkeypatch)).items():
        assert MEASURES[option] in text, f"{door}: {option}: {text!r}"


def test_every_measure_is_of_an_option(capsys, monkeypatch):
    found = set().union(*(numbers(options(door, capsys, monkeypatch)) for door in DOORS))
    assert found == MEASURES.keys()


@pytest.mark.parametrize("door", DOORS)
def test_help_and_mistakes_name_a_command_that_exists(door, capsys):
    """`python -m MODULE`, and the module is there: nothing is installed under another name."""
    told = f"python -m {door.removesuffix('.__main__')}"
    module = importlib.import_module(door)
    for arguments in (["--help"], ["--no-such-option"]):
        with pytest.raises(SystemExit):
            module.main(arguments)
        said = capsys.readouterr()
        assert told in " ".join(re.sub("[│╭╮╰╯─]", " ", said.out + said.err).split())
        assert not re.search(r"(?<!-m )(?<!/)\bmclr_fast\.\w+ (\[|--help)", said.out + said.err)


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("1", False)])
def test_only_a_node_s_first_rank_says_what_is_wrong(monkeypatch, tmp_path, capsys, rank, speaks):
    """Of eight ranks that are told the same, one answers; torchrun's summary points at what it said."""
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    word = tmp_path / "error.json"
    for name, value in {**place, "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_ERROR_FILE": str(word)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        importlib.import_module("mclr_fast.train").main(["--no-such-option", "1"])
    said = capsys.readouterr()
    assert end.value.code == 2 and ("--no-such-option" in said.out + said.err) is speaks
    assert "were not understood" in word.read_text()


def test_the_numbers_are_seen(capsys, monkeypatch):
    """The tests above would pass on help that they cannot read."""
    found = options("mclr_fast.train", capsys, monkeypatch)
    assert found["--lr FLOAT"].startswith("Learning rate")
    assert "--ema-stds [FLOAT [FLOAT ...]]" in found and len(found) > 60
    assert len(numbers(found)) > 35
