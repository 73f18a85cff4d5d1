"""Evaluation: predictions from weights (needs torch), metrics from predictions (does not)."""

TASK = "classification"
HEADLINE = "top1"  # the metric that tables and figures compare
