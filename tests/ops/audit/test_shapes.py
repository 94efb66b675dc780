"""The table of shapes is that of the real networks, as they call the ops on the meta device."""

import pytest
import torch

from mclr_fast import ops
from mclr_fast.models.edm2.network import Precond
from mclr_fast.models.edm2.presets import PRESETS
from mclr_fast.ops.audit import shapes
from mclr_fast.ops.audit.shapes import Spec

NAMES = {"EDM2-S/64": "edm2-img64-s", "EDM2-L/512": "edm2-img512-l"}
FORWARD = {  # public op: function of its Triton module, and how many tensors it starts with
    "pixel_norm_silu": ("pixel_norm_silu", "forward", 1),
    "double_pixels": ("double_pixels", "forward", 1),
    "halve_pixels": ("double_pixels", "halve", 1),
    "modulate_silu": ("modulate_silu", "forward", 2),
    "mp_cat_silu": ("mp_cat_silu", "forward", 2),
    "mp_sum_clip": ("mp_sum_clip", "forward", 2),
    "mp_sum_clip_silu": ("mp_sum_clip", "forward_silu", 2),
    "qkv_norm": ("qkv_norm", "forward", 1),
}


@pytest.fixture(params=shapes.NETWORKS, ids=lambda network: network.name)
def network(request):
    return request.param


@pytest.fixture
def real(network):
    with torch.device("meta"):
        return Precond(**PRESETS[NAMES[network.name]].net)


def test_activations(network, real, monkeypatch):
    seen = set()

    def recorded(name):
        op, (stem, function, count) = getattr(ops, name), FORWARD[name]

        def call(*arguments, **options):
            seen.add((stem, function, *(tuple(x.shape) for x in arguments[:count])))
            return op(*arguments, **options)

        return call

    for name in FORWARD:
        monkeypatch.setattr(ops, name, recorded(name))
    x = torch.empty(shapes.IMAGES, network.image_channels, 64, 64, device="meta")
    labels = torch.zeros(shapes.IMAGES, shapes.COLUMNS, dtype=torch.int64, device="meta")
    with torch.no_grad():
        real(x, torch.ones(shapes.IMAGES, device="meta"), labels)

    table = set()
    for call in shapes.calls(network):
        for stem, function, count in FORWARD.values():
            if (call.op, call.function) == (stem, function):
                specs = [a.shape for a in call.arguments if isinstance(a, Spec)]
                table.add((stem, function, *specs[:count]))
    assert table == seen


def test_weights(network, real):
    found = [tuple(p.shape) for name, p in real.named_parameters() if p.ndim > 1 and "logvar" not in name]
    assert sorted(shapes.weights(network)) == sorted(found)
