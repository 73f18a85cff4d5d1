"""The gate: before a rung is timed, its losses are R0's on the same batches, from the same weights."""

STEPS = 20
# The relative difference from R0's loss that a step may have. On processors fp32 gave up to 9e-6, mdistiller 4e-5 (its
# DKD, whose losses fall fastest), bf16 3e-5; a learning rate that is wrong by 1 % gives 9e-5 or more, another trainer
# 4e-3. TF32 is finer than bf16 and was not measured: R0's teacher is in it, the engine's is not.
TOLERANCE = {"fp32": 6e-5, "tf32": 2e-3, "bf16": 2e-3}


def passes(trace, reference, precision):
    """Whether the losses of a rung's first steps are those of R0."""
    differences = (abs(loss - other) / abs(other) for loss, other in zip(trace, reference, strict=True))
    return all(difference <= TOLERANCE[precision] for difference in differences)  # nor is one that is not finite
