"""The CUDA kernels as Python functions: compiled for the host under cuda_shim.h, or by nvcc for this GPU."""

import ctypes
import subprocess
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
SOURCES = [
    CSRC / "weight_norm_scale" / "weight_norm_scale_cuda.cu",
    CSRC / "adam_norm_ema_" / "adam_norm_ema__cuda.cu",
]
INCLUDE = [f"-I{CSRC / folder}" for folder in (".", "include", "common")]
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
H100_SHARED = 232448  # bytes of shared memory that a block may have

Pointer, Int64, Double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Weight(ctypes.Structure):
    """mclr_weight."""

    _fields_ = (
        *((name, Pointer) for name in ("weight", "gain", "out", "grad_out", "grad_weight", "grad_gain")),
        *((name, Int64) for name in ("rows", "in_channels", "taps", "dtype")),
    )


class Parameter(ctypes.Structure):
    """mclr_parameter."""

    _fields_ = (
        *((name, Pointer) for name in ("param", "grad", "exp_avg", "exp_avg_sq")),
        ("average", Pointer * 2),
        *((name, Int64) for name in ("rows", "row_size", "normalized")),
    )


class Adam(ctypes.Structure):
    """mclr_adam."""

    _fields_ = (
        *((name, Double) for name in ("lr", "beta1", "beta2", "eps", "bias1", "bias2_sqrt")),
        ("average_beta", Double * 2),
    )


def _pointer(x):
    return None if x is None else x.data_ptr()


def _sizes(weight):
    taps = weight[0, 0].numel() if weight.numel() else 1
    return dict(rows=len(weight), in_channels=weight.shape[1], taps=taps)


class Kernels:
    """The functions of mclr_fast.h on tensors. Results are given; convolutions' are channels_last."""

    def __init__(self, path, stream=lambda: None):
        self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        self.stream = stream

    def _call(self, name, *arguments):
        function = getattr(self.library, name)
        function.restype = Int64
        assert function(*arguments, Pointer(self.stream())) == 0, name

    def forward(self, weights, gains, outs):
        """outs[i] <- weight_norm_scale(weights[i], gains[i])."""
        table = (Weight * len(weights))()
        for row, weight, gain, out in zip(table, weights, gains, outs, strict=True):
            row.weight, row.gain, row.out = weight.data_ptr(), _pointer(gain), out.data_ptr()
            row.dtype = DTYPES[out.dtype]
            for name, value in _sizes(weight).items():
                setattr(row, name, value)
        self._call("mclr_weight_norm_scale_forward_cuda", table, Int64(len(table)))

    def backward(self, grads, weights, gains, grad_weights, grad_gains, workspace):
        """grad_weights, grad_gains <- the gradients; workspace: float32, one a row that has a gain."""
        table = (Weight * len(weights))()
        for i, row in enumerate(table):
            row.weight, row.gain, row.grad_out = (
                weights[i].data_ptr(),
                _pointer(gains[i]),
                grads[i].data_ptr(),
            )
            row.grad_weight, row.grad_gain = grad_weights[i].data_ptr(), _pointer(grad_gains[i])
            row.dtype = DTYPES[grads[i].dtype]
            for name, value in _sizes(weights[i]).items():
                setattr(row, name, value)
        self._call(
            "mclr_weight_norm_scale_backward_cuda", table, Int64(len(table)), Pointer(workspace.data_ptr())
        )

    def adam(self, params, grads, exp_avg, exp_avg_sq, averages, normalized, *, step, lr, betas, eps):
        """adam_norm_ema_, with the arguments of the reference."""
        table = (Parameter * len(params))()
        for i, row in enumerate(table):
            row.param, row.grad = params[i].data_ptr(), grads[i].data_ptr()
            row.exp_avg, row.exp_avg_sq = exp_avg[i].data_ptr(), exp_avg_sq[i].data_ptr()
            for k, (average, _) in enumerate(averages):
                row.average[k] = average[i].data_ptr()
            row.rows, row.row_size = len(params[i]), params[i][:1].numel()
            row.normalized = int(normalized[i])
        adam = Adam(lr, *betas, eps, 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5)
        for k, (_, beta) in enumerate(averages):
            adam.average_beta[k] = beta
        self._call("mclr_adam_norm_ema_cuda", table, Int64(len(table)), ctypes.byref(adam))


class HostKernels(Kernels):
    """Under the shim."""

    def reset(self, *, reverse=False, shared_limit=H100_SHARED):
        """Set the counters to 0, in which order threads run, and how much shared memory there is."""
        self.library.shim_reset(int(reverse), shared_limit)

    @property
    def counts(self):
        """(bytes read, bytes written, launches) since the reset."""
        counts = (Int64 * 3)()
        self.library.shim_counts(counts)
        return tuple(counts)


def build(command, target):
    """Compile the kernels' sources into the library `target`."""
    run = subprocess.run(
        [*command, *INCLUDE, *map(str, SOURCES), "-o", str(target)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def host_kernels(compiler, target):
    """Built by g++ under the shim."""
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-fno-gnu-unique", "-w"]
    build([compiler, *flags, f"-I{HERE}", "-x", "c++"], target)
    return HostKernels(target)


def device_kernels(nvcc, target):
    """Built by nvcc for this machine's GPU."""
    flags = ["-std=c++17", "-O3", "-shared", "-Xcompiler=-fPIC", "-arch=native", "-cudart=static"]
    build([nvcc, *flags], target)
    return Kernels(target, stream=lambda: torch.cuda.current_stream().cuda_stream)
