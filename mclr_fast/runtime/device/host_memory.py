"""The host's allocator, told what a training step on the processor wants of it."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
MADV_HUGEPAGE = 14  # of sys/mman.h
HUGE_PAGE = 2 << 20


def keep_freed_memory() -> None:
    """Have malloc keep what is freed for the next allocation, and back it with huge pages.

    A step frees and allocates gigabytes, in the same sizes as the step before. Returned to the system, each
    block comes back as zeroed 4 kB pages, one fault each. Kept, the process stays at its peak; its peak is no
    higher. Half of the machine's memory is asked for and freed again at once, untouched: that range of
    addresses, marked for huge pages, is what malloc then hands out. Linux with glibc; elsewhere nothing
    happens.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (OSError, AttributeError, TypeError, ValueError):
        return
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
    block = malloc(size)
    if block:
        first = -(-block // HUGE_PAGE) * HUGE_PAGE
        madvise(first, (block + size - first) // HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE)
        free(block)
