"""What several ranks are asked, and what is said of their answers; slow: all of it on two ranks of a CPU."""

import json
import os
import subprocess
from pathlib import Path

import gpu_page
import multi_gpu
import pytest
import rank_job
from multi_gpu import Failed, Node

SCRIPT = Path(multi_gpu.__file__).with_name("multi_gpu.sh")


def answer(num_ranks=2, weights="a", losses=(1.0, -2.0), sharding="replicate"):
    machine = {"processor": "NVIDIA B300", "torch": "2.12"}
    answer = {"losses": list(losses), "energies": [100.0, 100.0], "weights": weights, "machine": machine}
    answer |= {"ranks": num_ranks, "sharding": sharding, "images": 16 * num_ranks, "peak_GiB": 20.0}
    return answer | {"milliseconds": 100.0 + 10 * num_ranks, "resumed_from_step": 4}


class Ranks(Node):
    """A node that answers at once. Attributes: asked, what of it; changed, what an answer differs in."""

    def __init__(self, folder, ranks=4, **changed):
        super().__init__(ranks, False, folder)
        self.asked, self.changed = [], changed

    def run(self, num_ranks, job, *options, dies=False, **environment):
        words = " ".join(map(str, options))
        self.asked.append((num_ranks, job, words, dies, environment))
        if job == "images":
            return {"ranks": num_ranks, "images_per_second": 1e4 * num_ranks, "images": 16384}
        given = self.changed if "killed" in words or (num_ranks > 1 and "whole" in words) else {}
        return answer(num_ranks, sharding="shard" if "--sharding shard" in words else "replicate", **given)


def test_losses_are_judged_by_energies(tmp_path):
    same = multi_gpu.losses(Ranks(tmp_path, losses=(1.005, -2.0)))
    assert same["replicate"]["worst"] == pytest.approx(5e-5) and same["shard"]["equal"]
    other = multi_gpu.losses(Ranks(tmp_path, losses=(1.0, -2.02)))
    assert not other["replicate"]["equal"] and not multi_gpu.kept({"losses": other})


def test_a_rank_is_killed_and_the_same_command_runs_again(tmp_path):
    node = Ranks(tmp_path)
    found = multi_gpu.resume(node)
    assert found["shard"] == {"resumed_from_step": 4, "same_bits": True, "worst": 0.0}
    whole, killed, resumed = node.asked[:3]
    assert killed[3] and killed[4] == {"MCLR_FAST_FAULT": "3:5:sigkill"}
    assert resumed[2] == killed[2] != whole[2] and not resumed[3] and not resumed[4]


def test_other_bits_after_a_resume_break_the_promise(tmp_path):
    class Other(Ranks):
        def run(self, num_ranks, job, *options, dies=False, **environment):
            found = super().run(num_ranks, job, *options, dies=dies, **environment)
            return found | {"weights": "b"} if "killed" in str(options) else found

    found = multi_gpu.resume(Other(tmp_path))
    assert not found["replicate"]["same_bits"] and not multi_gpu.kept({"resume": found})


def test_scaling_is_of_one_rank(tmp_path):
    rows = multi_gpu.scaling(Ranks(tmp_path))["rows"]
    assert [(row["sharding"], row["ranks"]) for row in rows] == [
        ("replicate", 1), ("replicate", 2), ("replicate", 4), ("shard", 2), ("shard", 4),
    ]  # fmt: skip
    assert rows[0]["efficiency"] == 1 and rows[2]["efficiency"] == pytest.approx(110 / 140)
    assert rows[2]["images_per_second"] == pytest.approx(64 / 0.140)


def test_every_part_is_written_and_a_failing_one_says_why(tmp_path, monkeypatch):
    def run(self, num_ranks, job, *options, **more):
        if job == "images":
            raise Failed("images on 4 ranks: no DALI")
        return Ranks(tmp_path).run(num_ranks, job, *options, **more)

    monkeypatch.setattr(Node, "run", run)
    monkeypatch.setattr(multi_gpu, "write_png_zip", lambda *_: None)
    out = tmp_path / "out.json"
    assert multi_gpu.main([str(out), "--ranks", "4"]) == 1
    results = json.loads(out.read_text())
    assert results["data"] == {"failed": "images on 4 ranks: no DALI"}
    assert multi_gpu.kept({**results, "data": {}})
    page = gpu_page.ranks_table({"ranks": results})
    for line in (
        "- data: FAILED, images on 4 ranks: no DALI",
        "- shard: the losses of 6 steps on 4 x NVIDIA B300 are one rank's to 0.0e+00 of the energies (yes)",
        "- replicate: killed in step 5 and resumed from 4, the weights of the unbroken run to the bit: yes",
        "| replicate | 4 | 140.0 ms | 457 | 79% | 20.0 GiB |",
    ):
        assert line in page.splitlines()


def test_one_rank_goes_on_where_it_was(tmp_path, monkeypatch):
    """The same bits, and every step's loss, with states between."""
    monkeypatch.setattr(rank_job, "use_deterministic_kernels", lambda: None)

    def train(folder, steps):
        out = tmp_path / "out.json"
        given = ["--folder", folder, "--images", 4, "--steps", steps, "--save-every", 2, "--small"]
        rank_job.main(["steps", str(out), *map(str, given)])
        return json.loads(out.read_text())

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "cut", 2)
    resumed = train(tmp_path / "cut", 4)
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (0, 2)
    assert resumed["weights"] == whole["weights"] and len(whole["losses"]) == 4
    assert resumed["losses"] == whole["losses"] and len(set(whole["losses"])) == 4
    assert min(whole["energies"]) > 0 and whole["milliseconds"] > 0


@pytest.mark.slow
def test_the_script_on_two_ranks_of_a_cpu(tmp_path):
    environment = os.environ | {"MULTI_GPU_SMALL": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [SCRIPT, "out.json", "2"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["losses"]["shard"]["equal"] and results["resume"]["shard"]["same_bits"]
    assert results["resume"]["replicate"]["resumed_from_step"] in (2, 4)
    assert len(results["scaling"]["rows"]) == 3
    assert len(gpu_page.ranks_table({"ranks": results}).splitlines()) > 8


@pytest.mark.parametrize("ranks", ["1", "9"])
def test_two_to_eight(tmp_path, ranks, capsys):
    with pytest.raises(SystemExit):
        multi_gpu.main([str(tmp_path / "out.json"), "--ranks", ranks])
    assert f"--ranks {ranks} is not 2 to 8" in capsys.readouterr().err
