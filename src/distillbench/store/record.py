"""record.json of a finished run, checked on reading."""

from distillbench.errors import UserError
from distillbench.files import read_json
from distillbench.store.layout import CHECKPOINTS

RECORDED = {"run", "weights", "teacher_weights", "seconds", "images_per_second", "finished"}
RECORDED |= {"commit", "modified", "versions", "device", "threads", "platform"}


def read_record(path):
    """What record.json of a finished run holds. Raises UserError if it is something else."""
    record = read_json(path)
    if not isinstance(record, dict) or not record.keys() >= RECORDED or not _is_record(record):
        raise UserError(f"{path}: not a run's record; restore the file or remove the run")
    return record


def processor_text(record):
    """The processor of a record and the instruction sets in effect there; older records name none."""
    found = record.get("processor", {})
    texts = {"model": "{}", "torch": "torch {}", "onednn": "oneDNN {}"}
    return ", ".join(text.format(found[name]) for name, text in texts.items() if found.get(name)) or "unknown"


def _is_record(record):
    """Whether what is compared, computed with or printed has its type."""
    weights, texts = record["weights"], ("run", "finished", "device", "platform")
    return (
        isinstance(weights, dict)
        and all(isinstance(weights.get(checkpoint), str) for checkpoint in CHECKPOINTS)
        and isinstance(record["teacher_weights"], (str, type(None)))
        and all(isinstance(record[name], str) for name in texts)
        and isinstance(record["seconds"], (int, float))
        and isinstance(record["images_per_second"], (int, float, type(None)))
        and isinstance(record["versions"], dict)
        and isinstance(record["modified"], (list, type(None)))
        and isinstance(record["commit"], (str, type(None)))
        and isinstance(record.get("processor", {}), dict)
    )
