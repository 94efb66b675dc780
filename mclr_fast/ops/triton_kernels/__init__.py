"""Triton kernels of the ops: `<op>.forward` and `<op>.backward` on CUDA tensors.

Activations are channels_last, N images by C channels by P = H W pixels; all math is in float32 and each
result is rounded once. Nothing here waits for the device or looks at data on the host, so every call can
be captured in a CUDA graph. Importing a module of this folder imports triton; `mclr_fast.ops` does not.
"""
