"""The benchmark of the engine: a ladder of rungs from a plain loop up, each checked before it is timed.

A rung runs in processes of its own, so that nothing that it sets (threads, arithmetic, the allocator) reaches another.
"""

PAIRS = {"cpu": "resnet56:resnet20", "cuda": "resnet32x4:resnet8x4,wrn_40_2:wrn_16_2"}  # those timed by default
