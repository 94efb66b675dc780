"""What is judged once training is over: which network each row is of."""

from types import SimpleNamespace

import pytest
import torch

from mclr_fast.evaluation.rows import Row
from mclr_fast.experiments import after_training
from mclr_fast.runtime.process.ranks import Ranks

BEST = Row("mclr", "trained", 64, 3, 40, {"p": {"fd": 1.0}}, "p")


@pytest.fixture
def judged(tiny, monkeypatch):
    """judged(**options of the evaluation): {name: (network, kind, strengths)} of its rows; base, tuned."""
    base, tuned = tiny.tiny_net(0), tiny.tiny_net(1)
    tuned.load_state_dict({**tuned.state_dict(), **dict(base.named_buffers())})
    monkeypatch.setattr(after_training, "best_model", lambda run, row: tuned)

    def make(**options):
        seen = {}

        def evaluate(net, name, kind, images_seen, **strengths):
            seen[name] = (net, kind, strengths)
            return SimpleNamespace(row=BEST)

        config = SimpleNamespace(eval=SimpleNamespace(**{"best_cfg_scales": (), "dial": ()} | options))
        model = SimpleNamespace(family=SimpleNamespace(guided="cfg"))
        judging = SimpleNamespace(can_guide=True, release_guide=lambda: None, model=model)
        watch = SimpleNamespace(row=lambda row: None)
        run = SimpleNamespace(
            config=config, judging=judging, ranks=Ranks("cpu"), base_on_device=lambda: base, watch=watch
        )
        trained = SimpleNamespace(best=SimpleNamespace(row=BEST))
        after_training.after_training(run, SimpleNamespace(evaluate=evaluate), trained)
        return seen, base, tuned

    return make


def alike(one, other):
    x, sigma, labels = torch.ones(2, 1, 8, 8), torch.ones(2), torch.tensor([0, 1])
    return torch.allclose(one(x, sigma, labels), other(x, sigma, labels), atol=1e-5)


def test_the_dial_goes_from_the_base_to_the_best_model(judged):
    seen, base, tuned = judged(dial=(0.0, 0.5, 1.0))
    assert not alike(base, tuned)
    assert alike(seen["mclr-strength-0"][0], base) and alike(seen["mclr-strength-1"][0], tuned)
    middle, kind, strengths = seen["mclr-strength-0.5"]
    assert not alike(middle, base) and not alike(middle, tuned)
    assert kind == "dial" and strengths == {"strength": 0.5}


def test_guidance_is_of_the_best_model(judged):
    seen, _, tuned = judged(best_cfg_scales=(1.4,))
    assert seen == {"mclr-cfg-1.4": (tuned, "guided", {"guidance": 1.4})}
