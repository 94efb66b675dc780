"""What --precision means on this machine and on others: no test of it depends on which one this is."""

from types import SimpleNamespace

import pytest
import torch

from mclr_fast.runtime.device import precision
from mclr_fast.runtime.device.precision import choose_dtype

CPU = torch.device("cpu")


@pytest.fixture
def flags(monkeypatch):
    """flags(text): the processor says this of itself; None: it says nothing, as outside Linux."""

    def say(text):
        def read_text():
            if text is None:
                raise FileNotFoundError
            return text

        monkeypatch.setattr(precision, "Path", lambda _: SimpleNamespace(read_text=read_text))

    return say


@pytest.mark.parametrize(
    ("word", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_word_is_its_dtype_anywhere(word, dtype, device):
    assert choose_dtype(word, torch.device(device)) == dtype


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("flags : fpu avx2", torch.float32),
        ("flags : avx2 avx512f avx512vl avx512_fp16", torch.float32),
        ("flags : avx512f avx512_bf16", torch.bfloat16),
        ("flags : avx512f amx_bf16 amx_tile", torch.bfloat16),
        (None, torch.float32),
    ],
    ids=["avx2", "avx512", "avx512-bf16", "amx", "unknown"],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(flags, monkeypatch, text, dtype):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    flags(text)
    assert choose_dtype("auto", CPU) == dtype


def test_auto_is_fp32_where_torch_has_no_onednn(flags, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    flags("flags : avx512_bf16")
    assert choose_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_gpu_is_bf16_where_it_is_not_emulated(monkeypatch, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_dtype("auto", torch.device("cuda")) == dtype
