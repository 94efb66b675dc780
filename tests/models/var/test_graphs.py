"""A batch's calls of a VAR as one CUDA graph: the tokens of eager calls. On the CPU a tape captures."""

from typing import ClassVar

import pytest
import tiny_var as program
import torch
from recording import FromTheHost, NumbersSet, Recording
from torch.utils._python_dispatch import TorchDispatchMode

from mclr_fast.config import HeunConfig
from mclr_fast.runtime.device import graphs

GUIDED = dict(guidance=1.5)
KEPT = dict(top_k=9, top_p=0.9)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    program.write_vqvae(folder / "vqvae")
    return program.tiny_model(folder)


@pytest.fixture
def recording(monkeypatch):
    """The device that captures, in place of a GPU."""
    device = Recording()
    monkeypatch.setattr(graphs, "capturer", lambda _: device)
    return device


def sampler_of(model, net, guidance=None, **options):
    return model.sampler(net, HeunConfig(**options), guidance=guidance)


def batches(sampler, device="cpu"):
    """Four of three seeds and one of two, their classes beside them."""
    sizes = [range(3 * i, 3 * i + 3) for i in range(4)] + [range(2)]
    return [(sampler.start(seeds), torch.tensor(seeds).to(device) % 4) for seeds in sizes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, GUIDED | KEPT, GUIDED | {"more_smooth": True}])
def test_a_captured_call_gives_the_eager_tokens(model, recording, options, dtype):
    """The first call warms up, the second captures, others replay; the last batch is padded."""
    net = program.tiny_net(model)
    net.dtype = dtype
    sampler = sampler_of(model, net, **options)
    with torch.no_grad():
        given = batches(sampler)
        expected = [sampler._sample(*each) for each in given]
        with sampler.held():
            found = [sampler(*each) for each in given]
    expected[4] = expected[0][:2]  # by calls of as many rows as are captured
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(torch.cat(found).flatten(1).unique(dim=0)) == 12
    assert (recording.captured, recording.replays) == (1, 4)


def test_without_graphs_none_is_captured(model, recording):
    sampler = sampler_of(model, program.tiny_net(model), cuda_graphs="off")
    with sampler.held():
        for each in batches(sampler):
            sampler(*each)
    assert recording.captured == 0


def test_what_cannot_be_captured_is_sampled_kernel_by_kernel(model, recording, capsys):
    recording.fail = 1
    sampler = sampler_of(model, program.tiny_net(model))
    with sampler.held():
        for each in batches(sampler):
            assert torch.equal(sampler(*each), sampler._sample(*each))
    assert capsys.readouterr().out.count("without a CUDA graph, kernel by kernel: operation not") == 1


@pytest.mark.parametrize("options", [{}, GUIDED | KEPT, GUIDED | {"more_smooth": True}])
def test_a_call_neither_waits_for_the_host_nor_copies_from_it(model, options):
    """On the meta device, which has no values."""
    with torch.device("meta"):
        sampler = sampler_of(model, model.build(dtype=torch.bfloat16), **options)
        start, labels = torch.empty(3, sampler.num_uniforms), torch.empty(3, dtype=torch.int64)
    with torch.no_grad(), sampler.held():
        host = FromTheHost()
        with NumbersSet(), host:
            result = sampler(start, labels)
    assert result.device.type == "meta" and len(host.calls) > 100


def test_weights_are_cast_once_for_all_calls(model):
    """What a GPU's graph would do every time it is replayed is done before it."""
    net = program.tiny_net(model)
    net.dtype = torch.bfloat16
    before = {name: value for name, value in net.named_parameters()}
    sampler = sampler_of(model, net)
    casts = torch.ops.aten._to_copy.default

    class Casts(TorchDispatchMode):
        shapes: ClassVar[list] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is casts and args[0].ndim == 2 and args[0].shape[0] > 3:
                self.shapes.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    weights = 2 * [(96, 32), (32, 32), (128, 32), (32, 128)]
    with torch.no_grad():
        start, labels = batches(sampler)[0]
        with Casts() as seen:
            sampler(start, labels)
        assert sorted(seen.shapes) == sorted(weights)  # of the three scales' calls
        seen.shapes.clear()
        with seen, sampler.held():
            for _ in range(2):
                sampler(start, labels)
        assert sorted(seen.shapes) == sorted(weights)
    assert all(value is before[name] for name, value in net.named_parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, GUIDED | KEPT])
def test_on_a_gpu_too(model, options, dtype, capsys):
    net = program.tiny_net(model).cuda()
    net.dtype = dtype
    sampler = sampler_of(model, net, **options)
    given = batches(sampler, "cuda")
    with torch.no_grad(), sampler.held():
        expected = [sampler._sample(*each) for each in given]
        for each, tokens in zip(given, expected, strict=True):
            assert torch.equal(sampler(*each), tokens)
        assert len(sampler._graphs[-1]._graphs) == 1
    assert "without a CUDA graph" not in capsys.readouterr().out
