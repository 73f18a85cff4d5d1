"""Evaluation: predictions from weights (needs torch), metrics from predictions (does not)."""

import hashlib
import json
from pathlib import Path

CHECKPOINTS = ("last", "best")
PROTOCOL = {"version": 1, "transform": "published test transform", "logits": "float16"}
SPLIT = "test"


def evaluation_directory(run, checkpoint):
    """RUN/eval/SPLIT-CHECKPOINT-EVAL, EVAL being the digest of the evaluation protocol."""
    digest = hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True).encode()).hexdigest()
    return Path(run) / "eval" / f"{SPLIT}-{checkpoint}-{digest[:8]}"
