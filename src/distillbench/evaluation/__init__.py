"""Evaluation: predictions from weights (needs torch), metrics from predictions (does not)."""

import ast
import hashlib
import json
import os
import zipfile
from functools import cache
from pathlib import Path

CHECKPOINTS = ("last", "best")
PROTOCOL = {"version": 1, "transform": "published test transform", "logits": "float16"}
SPLIT = "test"


def evaluation_directory(run, checkpoint):
    """RUN/eval/SPLIT-CHECKPOINT-EVAL, EVAL being the digest of the evaluation protocol."""
    return Path(run) / "eval" / f"{SPLIT}-{checkpoint}-{_protocol_digest()}"


@cache
def _protocol_digest():
    return hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True).encode()).hexdigest()[:8]


def stated(path, *names):
    """The texts of these names in a predictions.npz, None for one that it has not; without numpy, for planning.

    Raises ValueError if the file is not one.
    """
    status = os.stat(path)
    return _stated(path, names, status.st_mtime_ns, status.st_size)


@cache
def _stated(path, names, *_changes):
    try:
        with zipfile.ZipFile(path) as archive:
            present = set(archive.namelist())
            return tuple(_text(archive.read(f"{n}.npy")) if f"{n}.npy" in present else None for n in names)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, SyntaxError, KeyError, NotImplementedError) as error:
        raise ValueError(f"not predictions ({error})") from None


def _text(content):
    """The text of an array of numpy's file format, version 1, that holds one."""
    start = 10 + int.from_bytes(content[8:10], "little")
    kind = ast.literal_eval(content[10:start].decode("latin-1"))["descr"]
    if not kind.startswith("<U"):
        raise ValueError(f"{kind} where a text belongs")
    return content[start:].decode("utf-32-le").rstrip("\0")
