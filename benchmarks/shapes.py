"""Shapes at which the ops are timed."""

# Evaluations, channels, height, width of activations that the caches hold, as training on the CPU has them.
NETWORK = {
    "64x32x32": (32, 64, 32, 32),  # 64 channels, 32x32, 8 images under 4 labels
    "64x8x8": (128, 64, 8, 8),  # 32 channels doubled, 8x8, 32 images under 4 labels
}
LABELS = 4  # columns of an image where an operand is shared

IMAGES = {"8x3x32x32": (8, 3, 32, 32), "32x1x16x16": (32, 1, 16, 16)}
PREDICTIONS = {"8x4x3x32x32": (8, 3, 32, 32), "32x4x1x16x16": (32, 1, 16, 16)}

# Evaluations, tokens, channels of a residual stream.
TOKENS = {
    "8x680x1024": (8, 680, 1024),  # VAR-d16 on 2 images under 4 labels; past most caches
    "128x30x48": (128, 30, 48),  # the embedded VAR on 32 images under 4 labels
}

# One image's worth, repeated until no cache holds it.
PAST_CACHE_ACTIVATION = (64, 32, 32)
PAST_CACHE_IMAGE = (4, 64, 64)
PAST_CACHE_TOKENS = (680, 1024)

# Magnitude-preserving weights of one encoder and one decoder block at widths 64 and 128.
BLOCK_WEIGHTS = [
    (64, 64, 3, 3), (64, 64, 3, 3), (64, 128), (128, 128, 3, 3), (128, 64, 1, 1), (128, 128),
    (384, 128, 1, 1), (128, 128, 1, 1), (64, 192, 3, 3), (64, 192, 1, 1),
]  # fmt: skip

# Of one block of EDM2-S at width 384, with attention; repeated past the cache.
WIDE_BLOCK_WEIGHTS = [(384, 384, 3, 3), (384, 384, 3, 3), (384, 768), (1152, 384, 1, 1), (384, 384, 1, 1)]
