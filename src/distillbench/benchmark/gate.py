"""The gate: before a rung is timed, its losses are R0's on the same batches, from the same weights."""

import math

STEPS = 20
# The relative difference from R0's losses that a precision may have in the first step. Rounding grows with every step
# of training, so a later step may have GROWTH times as much as the one before, up to LARGEST.
FIRST = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 5e-3}
GROWTH, LARGEST = 10, 0.1


def passes(trace, reference, precision):
    """Whether the losses of a rung, of `STEPS` steps, are those of R0."""
    allowed = (min(FIRST[precision] * GROWTH**step, LARGEST) for step in range(len(reference)))
    return all(
        math.isfinite(loss) and abs(loss - other) <= limit * abs(other)
        for loss, other, limit in zip(trace, reference, allowed, strict=True)
    )
