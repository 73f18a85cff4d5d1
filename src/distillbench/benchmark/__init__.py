"""The benchmark of the engine: a ladder of rungs from a plain loop up, each checked before it is timed.

A rung runs in processes of its own, so that nothing that it sets (threads, arithmetic, the allocator) reaches another.
"""
