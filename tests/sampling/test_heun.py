"""The EDM sampler against golden runs, and against denoisers whose flow is known in closed form."""

import json
import math

import numpy as np
import pytest
import torch

from mclr_fast.config import SampleConfig
from mclr_fast.models.edm2 import Precond
from mclr_fast.sampling import (
    HeunSampler,
    Unconditional,
    edm_sampler,
    seeded_noise,
    sigma_steps,
)


class Recorder:
    """A denoiser that notes the sigma and labels of every call."""

    def __init__(self, net):
        self.net, self.sigmas, self.labels, self.dtypes = net, [], [], []

    def __call__(self, x, sigma, labels):
        self.sigmas.append(sigma)
        self.labels.append(labels)
        self.dtypes.append(x.dtype)
        return self.net(x, sigma, labels)


def gaussian(std):
    """The ideal denoiser of data N(0, std^2)."""
    return lambda x, sigma, labels: x * std**2 / (std**2 + sigma**2)


@pytest.fixture(scope="module")
def run(golden):
    return golden("edm2_sampler")


@pytest.fixture(scope="module")
def config(run):
    return json.loads(str(run["config_json"]))


@pytest.fixture(scope="module")
def nets(run, config):
    def build(name):
        ctor = {k: v for k, v in config[name]["ctor"].items() if k != "use_fp16"}
        prefix = f"{name}/param/"
        params = {
            key.removeprefix(prefix): torch.from_numpy(run[key])
            for key in run.files
            if key.startswith(prefix)
        }
        net = Precond(**ctor).eval()
        net.load_state_dict(params, strict=True)
        return net

    return build("net"), build("gnet")


def assert_golden(actual, expected):
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("churn", [False, True])
@pytest.mark.parametrize("guidance", [1, 1.7])
def test_golden_runs(run, config, nets, guidance, churn):
    net, gnet = Recorder(nets[0]), nets[1]
    normals = iter(torch.from_numpy(run["churn_normals"]))
    options = {**config["churn"], "randn_like": lambda x: next(normals)} if churn else {}
    out = edm_sampler(
        net,
        torch.from_numpy(run["noise"]),
        torch.from_numpy(run["labels"]),
        gnet=gnet,
        guidance=guidance,
        num_steps=config["num_steps"],
        **options,
    )
    name = "_churn" * churn + f"_guidance{guidance}" * (guidance != 1 or not churn)
    assert_golden(out, run[f"out{name}"])
    sigmas = run["churn_net_eval_sigmas" if churn else "net_eval_sigmas"]
    np.testing.assert_allclose(torch.stack(net.sigmas), sigmas, rtol=1e-6)
    if churn:
        assert next(normals, None) is None


def test_golden_alternative_schedule(run, config, nets):
    noise, labels = torch.from_numpy(run["noise"]), torch.from_numpy(run["labels"])
    options = {"num_steps": config["num_steps"], **config["alt_schedule"]}
    assert_golden(edm_sampler(nets[0], noise, labels, **options), run["out_alt_schedule"])


def test_golden_float64_state_with_float32_net(run, config, nets):
    net = Recorder(nets[0])
    noise, labels = torch.from_numpy(run["noise"]).double(), torch.from_numpy(run["labels"])
    out = edm_sampler(net, noise, labels, num_steps=config["num_steps"])
    assert_golden(out, run["out_float64"])
    assert set(net.dtypes) == {torch.float32}


def test_golden_generation_from_seeds(run, config, nets):
    settings = config["generate"]
    images = []
    for batch in np.array_split(run["generate/seeds"], len(run["generate/batch_sizes"])):
        noise, label_draw, randn_like = seeded_noise(batch, run["generate/noise"].shape[1:])
        images.append(
            edm_sampler(
                nets[0],
                noise,
                label_draw(config["net"]["ctor"]["label_dim"]),
                gnet=nets[1],
                guidance=settings["guidance"],
                num_steps=settings["num_steps"],
                randn_like=randn_like,
            )
        )
    decoded = (torch.cat(images) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    difference = decoded.int() - torch.from_numpy(run["generate/images"]).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("num_steps", [2, 5])
def test_number_of_network_calls(num_steps):
    net, gnet = Recorder(gaussian(0.5)), Recorder(gaussian(1.0))
    noise = torch.randn(2, 1, 4, 4)
    edm_sampler(net, noise, gnet=gnet, num_steps=num_steps)
    assert (len(net.sigmas), len(gnet.sigmas)) == (2 * num_steps - 1, 0)
    edm_sampler(net, noise, gnet=gnet, guidance=2.0, num_steps=num_steps)
    assert (len(net.sigmas), len(gnet.sigmas)) == (4 * num_steps - 2, 2 * num_steps - 1)


def test_noise_levels_are_those_of_float64():
    steps = sigma_steps(32, 0.002, 80.0, 7.0)
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(ends[0] + i / 31 * (ends[1] - ends[0])) ** 7 for i in range(32)]
    assert steps.dtype == torch.float64
    assert steps.tolist() == pytest.approx([*expected, 0.0], rel=1e-12)


def test_flow_of_gaussian_data_converges_at_second_order():
    """The exact flow scales x by sqrt(std^2 + t^2); doubling the steps quarters Heun's error."""
    noise, std = torch.randn(2, 1, 4, 4, dtype=torch.float64), 0.5
    exact = 80.0 * noise * std / math.sqrt(std**2 + 80.0**2)
    errors = [(edm_sampler(gaussian(std), noise, num_steps=n) - exact).abs().max() for n in (32, 64)]
    assert errors[1] < errors[0] / 3.5
    assert errors[1] < 5e-3 * exact.abs().max()


def test_churn_keeps_the_data_distribution():
    torch.manual_seed(0)
    out = edm_sampler(gaussian(0.5), torch.randn(20000, 1, 1, 1), num_steps=128, S_churn=20.0)
    assert out.std().item() == pytest.approx(0.5, rel=0.02)


def test_churn_draws_only_between_S_min_and_S_max():
    draws = []

    def randn_like(x):
        draws.append(x)
        return torch.zeros_like(x)

    noise = torch.randn(2, 1, 2, 2)
    options = {"num_steps": 8, "S_min": 0.05, "S_max": 50.0, "randn_like": randn_like}
    edm_sampler(gaussian(0.5), noise, **options)
    assert not draws
    edm_sampler(gaussian(0.5), noise, S_churn=10.0, **options)
    assert len(draws) == sum(0.05 <= t <= 50 for t in sigma_steps(8, 0.002, 80.0, 7.0).tolist())


def test_self_guidance_passes_the_zero_label():
    net = Recorder(lambda x, sigma, labels: x * labels.view(-1, 1, 1, 1))
    x, labels = torch.randn(3, 1, 2, 2), torch.tensor([4, 5, 6])
    out = edm_sampler(net, x, labels, gnet=Unconditional(net), guidance=1.5, num_steps=2, sigma_min=1.0)
    assert out.shape == x.shape
    assert {tuple(seen.tolist()) for seen in net.labels} == {(-1, -1, -1), (4, 5, 6)}


def test_guidance_extrapolates_the_outputs():
    """The ideal denoisers of two Gaussians are linear in x: so is what guidance makes of them."""
    x = torch.randn(3, 1, 2, 2)
    d, g = gaussian(0.5), gaussian(1.0)
    mixed = edm_sampler(lambda *arguments: torch.lerp(g(*arguments), d(*arguments), 1.5), x, num_steps=4)
    torch.testing.assert_close(edm_sampler(d, x, gnet=g, guidance=1.5, num_steps=4), mixed)


def test_guidance_acts_in_its_interval_alone():
    x, d, g = torch.randn(3, 1, 2, 2), Recorder(gaussian(0.5)), Recorder(gaussian(1.0))
    options = {"gnet": g, "guidance": 2.0, "num_steps": 6}
    inside = edm_sampler(d, x, guidance_interval=(0.2, 5.0), **options)
    assert [s.item() for s in g.sigmas] == [s.item() for s in d.sigmas if 0.2 <= s <= 5.0] != []
    everywhere, nowhere = edm_sampler(d, x, **options), edm_sampler(d, x, num_steps=6)
    assert not torch.allclose(inside, everywhere) and not torch.allclose(inside, nowhere)
    torch.testing.assert_close(edm_sampler(d, x, guidance_interval=(0, 100), **options), everywhere)
    levels = sigma_steps(6, 0.002, 80.0, 7.0).tolist()
    ends = Recorder(gaussian(1.0))
    edm_sampler(d, x, guidance_interval=(levels[3], levels[1]), **options | {"gnet": ends})
    assert [s.item() for s in ends.sigmas] == pytest.approx([levels[i] for i in (1, 1, 2, 2, 3, 3)])
    torch.testing.assert_close(edm_sampler(d, x, guidance_interval=(200, 300), **options), nowhere)


CHURN = {"S_churn": 10.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.01}


def heun_sampler(**options):
    """Of a stand-in net, which counts its calls and those of its guide; 10 classes."""
    numbers = {"num_steps": 5, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, **options}
    config = SampleConfig(model="none", **numbers)
    nets = Recorder(gaussian(0.5)), Recorder(gaussian(1.0))
    guidance = 1.5 if "guidance_interval" in options else 1.0
    return HeunSampler(nets[0], (1, 4, 4), torch.device("cpu"), config, nets[1], guidance, num_classes=10)


@pytest.mark.parametrize("options", [{}, CHURN, {"guidance_interval": (0.2, 40.0)}])
def test_a_sampler_counts_its_calls(options):
    sampler = heun_sampler(**options)
    sampler(sampler.start([0, 1]), torch.tensor([0, 1]))
    assert sampler.nfe == len(sampler.net.sigmas) + len(sampler.guide.sigmas)


def test_churn_adds_the_seeds_own_noise():
    """EDM2's order of draws: noise, class, then a step's noise after the other; alike in any batch."""
    sampler = heun_sampler(**CHURN)
    labels = torch.tensor([0, 1, 2])
    together = sampler(sampler.start([4, 5, 6]), labels)
    alone = torch.cat([sampler(sampler.start([seed]), labels[:1]) for seed in (4, 5, 6)])
    torch.testing.assert_close(together, alone)
    noise, label_draw, randn_like = seeded_noise([4, 5, 6], (1, 4, 4))
    label_draw(10)
    expected = edm_sampler(sampler.net, noise, labels, num_steps=5, randn_like=randn_like, **CHURN)
    assert torch.equal(together, expected)
    assert not torch.allclose(together, heun_sampler()(noise, labels), atol=1e-2)


def test_mistakes_are_named():
    noise = torch.randn(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"guidance=2\.0 needs a guiding net"):
        edm_sampler(gaussian(0.5), noise, guidance=2.0)
    with pytest.raises(ValueError, match="num_steps=1"):
        edm_sampler(gaussian(0.5), noise, num_steps=1)
