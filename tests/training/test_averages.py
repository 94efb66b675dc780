"""Weight averages: EDM2's recorded ones, resumed to the bit, float32 whatever is averaged."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from mclr_fast.training.averages import (
    HalfLifeEMA,
    PlainEMA,
    PowerFunctionEMA,
    exponent_to_std,
    power_function_beta,
    std_to_exponent,
)


@pytest.fixture(scope="module")
def z(golden):
    return golden("edm2_schedule")


@pytest.fixture(scope="module")
def track(z):
    return json.loads(str(z["config_json"]))["track"]


def test_exponents_and_decays_are_those_recorded(z):
    np.testing.assert_allclose(std_to_exponent(z["ema/stds"]), z["ema/exponents"], rtol=1e-9)
    np.testing.assert_allclose(exponent_to_std(z["ema/exponents"]), z["ema/std_roundtrip"], 1e-9)
    betas = power_function_beta(z["ema/stds"][:, None], z["ema/beta_t_next"], z["ema/beta_t_delta"])
    np.testing.assert_allclose(betas, z["ema/betas"], rtol=1e-9)


def replay(z, module, ema, batch_size):
    """Feed the golden weights of every step; yields the averages after each."""
    states = zip(z["track/net_weight"], z["track/net_bias"], strict=True)
    for step, (weight, bias) in enumerate(states, start=1):
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(weight))
            module.bias.copy_(torch.from_numpy(bias))
        ema.update(step * batch_size, batch_size)
        yield ema.weights()


@pytest.fixture
def module(z):
    module = nn.Linear(5, 3)
    module.register_buffer("freqs", torch.from_numpy(z["track/init/freqs"]))
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(z["track/init/weight"]))
        module.bias.copy_(torch.from_numpy(z["track/init/bias"]))
    return module


def test_golden_power_function_ema(z, track, module):
    ema = PowerFunctionEMA(module, track["stds"])
    steps = [
        {label: {n: t.clone() for n, t in average.items()} for label, average in weights.items()}
        for weights in replay(z, module, ema, track["batch_size"])
    ]
    for i, label in enumerate(["0.050", "0.100"]):
        for name in ("weight", "bias"):
            actual = torch.stack([weights[label][name] for weights in steps])
            np.testing.assert_allclose(actual, z[f"track/ema_{name}"][:, i], rtol=0, atol=1e-6)
        assert steps[0][label].keys() == {"weight", "bias"}
        np.testing.assert_array_equal(steps[0][label]["weight"], z["track/net_weight"][0])


def test_golden_halflife_ema(z, track, module):
    settings = track["traditional"]
    ema = HalfLifeEMA(module, settings["halflife_Mimg"] * 1e6, settings["rampup_ratio"])
    replayed = replay(z, module, ema, track["batch_size"])
    actual = torch.stack([weights["halflife"]["weight"].clone() for weights in replayed])
    np.testing.assert_allclose(actual, z["track/traditional_ema_weight"], rtol=0, atol=1e-6)


def test_a_plain_average_decays_alike_in_every_step():
    live = {"w": torch.zeros(2)}
    ema = PlainEMA(live, beta=0.9)
    live["w"].fill_(1.0)
    for step in range(3):
        ema.update(32 * (step + 1), 32)
    torch.testing.assert_close(ema.weights()["plain"]["w"], torch.full((2,), 1 - 0.9**3))


def test_averages_of_low_precision_parameters_are_float32():
    live = {"w": torch.zeros(2, dtype=torch.bfloat16)}
    ema = PlainEMA(live, beta=0.999)
    live["w"].fill_(1.0)
    ema.update(1, 1)
    torch.testing.assert_close(ema.weights()["plain"]["w"], torch.full((2,), 0.001))


EMAS = {
    "power": lambda m: PowerFunctionEMA(m, [0.05, 0.1]),
    "plain": lambda m: PlainEMA(m, 0.9),
    "halflife": lambda m: HalfLifeEMA(m, 100, 0.09),
}


@pytest.mark.parametrize("make", EMAS.values(), ids=EMAS.keys())
def test_resumed_run_ends_at_the_same_average(make):
    live = nn.Linear(4, 3)

    def train(ema, steps):
        for step in steps:
            with torch.no_grad():
                live.weight.fill_(step)
            ema.update(32 * step, 32)

    whole, first, second = make(live), make(live), make(live)
    train(whole, range(1, 7))
    train(first, range(1, 4))
    state = load(save(first.state_dict()))
    second.load_state_dict(state)
    train(second, range(4, 7))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        assert not torch.equal(tensor, state[name]) or name.endswith("bias")


def test_mistakes_are_named():
    ema = PowerFunctionEMA(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"differs in 4 names, first '0\.050/bias'"):
        ema.load_state_dict({})
    wrong = {**ema.state_dict(), "0.050/weight": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match=r"shape \[1, 2\], the model \[2, 2\]"):
        ema.load_state_dict(wrong)
    with pytest.raises(ValueError, match="images_seen=0 must include the 32 images"):
        ema.update(0, 32)
    with pytest.raises(ValueError, match="not distinct to three decimals"):
        PowerFunctionEMA(nn.Linear(2, 2), [0.05, 0.0501])
    with pytest.raises(ValueError, match=r"lies in \(0, 0\.2886\]"):
        PowerFunctionEMA(nn.Linear(2, 2), [0.05, 0.5])
    with pytest.raises(ValueError, match=r"beta=1\.5"):
        PlainEMA(nn.Linear(2, 2), 1.5)
    with pytest.raises(ValueError, match="halflife_images=0"):
        HalfLifeEMA(nn.Linear(2, 2), 0, 0.05)
    with pytest.raises(ValueError, match=r"std=0\.3"):
        std_to_exponent(0.3)
