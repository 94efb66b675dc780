"""The list of names in pickles/values.py is what programs write, at every protocol and numpy major."""

import inspect
import pickle
import pickletools

import numpy as np
import pytest
import torch
from producers import ARGUMENTS, CORES, edm2_kinds, net_of, torch_kinds, write

from mclr_fast.integrations import nvlabs_edm2
from mclr_fast.integrations.nvlabs_edm2 import ContrastLoss
from mclr_fast.models.storage.pickled import read_pickled
from mclr_fast.pickles import reading, values

PROTOCOLS = (2, 3, 4, 5)
KINDS = list(edm2_kinds())


@pytest.fixture(scope="module")
def kinds():
    return edm2_kinds() | torch_kinds()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.robust("producers")
def test_each_kind_is_the_network_that_it_holds(tmp_path, kinds, kind):
    """Weights and arguments are read, at protocols 2 to 5, with numpy 1's names and numpy 2's."""
    form, content = kinds[kind]
    half = "state" not in kind and "our net" not in kind
    expected = content["net"] if kind.startswith("training state") else net_of().state_dict()
    for protocol in PROTOCOLS:
        for core in CORES:
            path = write(tmp_path / "x.pt", content, form, protocol, core)
            model = read_pickled(path)
            state = model.state()
            assert state.keys() == expected.keys() and model.config["net"].items() >= ARGUMENTS.items()
            for name, value in state.items():
                wanted = expected[name].half() if half else expected[name]
                assert torch.equal(value, wanted), (protocol, core, name)


@pytest.mark.robust("producers")
def test_the_list_is_what_they_name(tmp_path, kinds):
    """No name is missing from what is known, and none is known that nobody writes."""
    named = set()
    for form, content in kinds.values():
        for protocol in PROTOCOLS:
            for core in CORES:
                reading.read(write(tmp_path / "x", content, form, protocol, core, named))
    assert named == values.KNOWN


def test_every_loss_for_their_loop_is_known():
    found = {
        f"{loss.__module__}.{name}"
        for name, loss in vars(nvlabs_edm2).items()
        if inspect.isclass(loss) and issubclass(loss, ContrastLoss) and not inspect.isabstract(loss)
    }
    assert found == values.LOSSES


@pytest.mark.robust("producers")
def test_what_torch_names_for_a_ddp_wrapped_net(tmp_path):
    """The real class's names are known, not a stand-in's alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(_Leaf())
        named = set()
        for protocol in PROTOCOLS:
            write(tmp_path / "x", {"ema": wrapped}, "zip", protocol, "numpy._core", named)
    finally:
        torch.distributed.destroy_process_group()
    assert {name for name in named if not name.endswith("._Leaf")} <= values.KNOWN


class _Leaf(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.robust("producers")
def test_numbers_and_what_else_is_beside_a_net(tmp_path, protocol):
    """numpy's scalars are numbers; sets, shapes, devices and paths are plain values."""
    numbers = {
        "f8": 0.1,
        "f4": 0.5,
        "f2": 2.0,
        "i8": -(1 << 40),
        "i4": 7,
        "i2": -3,
        "u8": 9,
        "u4": 1 << 31,
        "?": True,
    }
    held = {code: np.dtype(code).type(value) for code, value in numbers.items()}
    held |= {"big": np.array(1.5, ">f8")[()], "size": torch.Size([2, 3]), "seen": {"a"}}
    held |= {"device": torch.device("cuda", 1), "array": np.arange(6.0).reshape(2, 3).T, "text": np.str_("x")}
    path = tmp_path / "x.pt"
    torch.save(held, path, pickle_protocol=protocol)
    found = reading.read(path)
    assert {code: found[code] for code in numbers} == numbers
    assert [type(found[code]) for code in numbers] == [type(value) for value in numbers.values()]
    assert (found["big"], found["size"], found["seen"], found["device"]) == (1.5, [2, 3], ["a"], "cuda:1")
    assert np.array_equal(reading.tensor(path, found["array"]), held["array"]) and found["text"] is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.robust("producers")
def test_arrays_in_every_order(tmp_path, protocol, core):
    """They are read in either order, and long ones stay in the file until they are asked for."""
    square = np.arange(6.0).reshape(2, 3)
    held = {
        "c": square,
        "f": np.asfortranarray(square),
        "strided": np.arange(9.0)[::2],
        "zero": np.array(3.0),
    }
    held |= {
        "empty": np.zeros((0, 2)),
        "flags": np.array([True, False]),
        "short": np.arange(3, dtype=np.int16),
    }
    if protocol > 2:
        held["long"] = np.arange(300_000.0)
    path = write(tmp_path / "x.pkl", held, "pickle", protocol, core)
    for name, node in reading.read(path).items():
        assert np.array_equal(reading.tensor(path, node), held[name]), name


@pytest.mark.robust("producers")
def test_text_of_a_large_array_at_protocol_2(tmp_path):
    """It is refused: save it with protocol 3 or later."""
    path = write(tmp_path / "x.pkl", {"long": np.arange(300_000.0)}, "pickle", 2)
    with pytest.raises(ValueError, match=r"a value of \S+ bytes at byte \S+ that is no tensor's data"):
        reading.read(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_pickler_of_these_tests_writes_what_pickle_does(tmp_path, protocol):
    """So that what it names is what programs name."""
    value = {"a": np.arange(3.0), "b": np.float64(1), "c": {1}, "d": torch.ones(2)}
    core = np.float64(1).__reduce__()[0].__module__.removesuffix(".multiarray")
    ours = write(tmp_path / "x", value, "pickle", protocol, core)
    globals_of = lambda data: {  # noqa: E731
        argument
        for name, argument, _ in pickletools.genops(data)
        if name.name in ("GLOBAL", "SHORT_BINUNICODE")
    }
    assert globals_of(ours.read_bytes()) == globals_of(pickle.dumps(value, protocol))
