"""The gate: before a rung is timed, its losses are R0's on the same batches, from the same weights."""

STEPS = 20
# The relative difference from R0's loss that a step may have. At `experiment.RATE` fp32 gave up to 4e-6, bf16 2e-4,
# and a learning rate that is wrong by 1 % 1e-4 to 1e-3; TF32 was not measured, and rounds finer than bf16.
TOLERANCE = {"fp32": 4e-5, "tf32": 2e-3, "bf16": 2e-3}


def passes(trace, reference, precision):
    """Whether the losses of a rung's first steps are those of R0."""
    differences = (abs(loss - other) / abs(other) for loss, other in zip(trace, reference, strict=True))
    return all(difference <= TOLERANCE[precision] for difference in differences)  # nor is one that is not finite
