"""The training engine. It knows tensors, networks, methods and trainers; it knows none of them by name."""
