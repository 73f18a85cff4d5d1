"""Transformations of the logits that a distillation loss compares, one file each."""
