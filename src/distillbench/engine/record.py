"""What a finished run leaves: specification, record, history, weights. The record comes last and means: done."""

import csv
import io
import platform
import resource
import socket
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from distillbench import __version__
from distillbench.config import components
from distillbench.engine.processor import processor
from distillbench.engine.weights import save_tensors, weights_digest
from distillbench.files import to_json, write_atomically
from distillbench.models import network_cost

CODE = (
    "src",
    "workflow",
    "params",
    "profiles",
    "Snakefile",
)  # a change elsewhere does not make a run "modified"


class Stopwatch:
    """Time of all attempts, as far as their work was kept, and the images of a whole training."""

    def __init__(self, earlier_seconds, device, images):
        self.start, self.earlier, self.device, self.images = time.monotonic(), earlier_seconds, device, images

    def seconds(self):
        return self.earlier + time.monotonic() - self.start


def write_run(out, specification, network, progress, teacher_digest, attempts, watch, source, how, origin):
    """Write the files of a finished run into the folder `out`.

    network: what is deployed; progress: `flight.Progress` after the last epoch; teacher_digest: of the teacher's
    weights really used, or None; attempts: number of processes that it took; source: where the specification was
    written down (file, row, dialect), or None; how: what does not belong to the specification and was decided where the
    run was trained (driver, why, effective precision, where the teacher's logits came from, ...), of the last attempt;
    origin: the digest of the decoded images, and what their file says of where they came from.
    """
    out = Path(out)
    last = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    best = {name: tensor.contiguous() for name, tensor in progress.best_weights.items()}
    image_size = components.datasets()[specification["dataset"]["name"]]["image_size"]
    parameters, multiply_adds = network_cost(network, image_size)
    record = {
        "schema": 1,
        "run": specification.id,
        "weights": {"last": weights_digest(last), "best": weights_digest(best)},
        "teacher_weights": teacher_digest,
        "images": origin,
        "best_epoch": progress.best_epoch,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "source": source,
        "attempts": attempts,
        "engine": how,
        "seconds": round(watch.seconds(), 3),
        "images_per_second": round(watch.images / watch.seconds(), 1),
        "peak_memory_mb": peak_memory_mb(watch.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(watch.device, specification["threads"]),
    }
    save_tensors(out / "model.best.pt", {"model": best})
    save_tensors(out / "model.last.pt", {"model": last})
    write_atomically(out / "history.csv", history(progress.rows))
    write_atomically(out / "spec.json", to_json(specification.as_file()))
    write_atomically(out / "record.json", to_json(record))


def history(rows):
    """The text of history.csv: one line an epoch, numbers in full precision; empty what an epoch had not."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def provenance(device, threads):
    """Where and with what something was computed."""
    commit, modified = git_state()
    return {
        "commit": commit,
        "modified": modified,
        "versions": {
            "distillbench": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy")},
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "processor": processor(),
        "threads": threads,
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def git_state():
    """(commit, [modified files of the code]) of the working directory, (None, None) outside git."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changes = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, [line[3:] for line in changes.splitlines()]


def _git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=True)
    return done.stdout


def peak_memory_mb(device):
    """Of the device, where it is a GPU, else of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
