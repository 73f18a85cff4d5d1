"""Evaluation: predictions from weights (needs torch), metrics from predictions (does not)."""
