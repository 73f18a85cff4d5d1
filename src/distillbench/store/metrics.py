"""metrics.json of a run, checked on reading."""

from distillbench.errors import UserError
from distillbench.files import read_json


def read_metrics(path, digest=None):
    """What a metrics.json holds. digest: that of its run, or the beginning of it; None: not known.

    Raises UserError if it is something else, or of another run.
    """
    content = read_json(path)
    try:
        mine = content["run_sha256"].startswith(digest or "")
        entries = [
            (entry["value"], *(entry[key] for key in ("split", "checkpoint", "metric"))) for entry in content["metrics"]
        ]
        named = [content.get(key, {}) for key in ("predictions", "teacher_predictions")]
        if not (
            all(type(number) in (int, float) and abs(number) < float("inf") for number, *_ in entries)
            and all(isinstance(text, str) for _, *texts in entries for text in texts)
            and all(isinstance(entry, dict) for entry in named)
        ):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: not metrics of a run; remove the file and evaluate again") from None
    if not mine:
        raise UserError(f"{path}: metrics of another run; remove the file and evaluate again")
    return content
