"""Of the ops: who gets them through torch.library, and what the C libraries are handed."""

FAULTS = [
    (
        "subclasses are taken for plain tensors",
        "ops/_library.py",
        "type(x) not in _PLAIN_TYPES or ",
        "",
        "ops/test_library.py",
    ),
    (
        "a pending sign is left out",
        "ops/_library.py",
        " or x.is_neg()",
        "",
        "ops/test_library.py",
    ),
    (
        "the last tensor's device stands for all",
        "ops/_library.py",
        "on_cpu, on_cuda = on_cpu and x.is_cpu, on_cuda and x.is_cuda",
        "on_cpu, on_cuda = x.is_cpu, x.is_cuda",
        "ops/test_library.py",
    ),
    (
        "modes do not see the ops",
        "ops/_library.py",
        "        or torch._C._len_torch_dispatch_stack() > 0\n",
        "",
        "ops/test_library.py",
    ),
    (
        "profiles do not name the ops",
        "ops/_library.py",
        "        or torch.autograd._profiler_enabled()\n",
        "",
        "ops/test_library.py",
    ),
    (
        "channels_last strides of a transposed image",
        "ops/_layout.py",
        "strides = height * width * channels, 1, width * channels, channels",
        "strides = height * width * channels, 1, height * channels, channels",
        "ops/test_mp_cat_silu.py ops/test_mp_sum_clip.py ops/test_noisy_input.py",
    ),
]
