"""Evaluation of finished runs: predictions from weights (needs torch), metrics from predictions (does not)."""
