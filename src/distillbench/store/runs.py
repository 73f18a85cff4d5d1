"""Runs on disk: where everything of a run lies, how it stands, and how people name it."""

from pathlib import Path

from distillbench.config.implemented import older
from distillbench.config.specification import run_ids
from distillbench.errors import UserError
from distillbench.store import attempts
from distillbench.store.claim import claimed
from distillbench.store.identity import identity
from distillbench.store.layout import (
    CHECKPOINTS,
    FINISHED,
    TRAINING,
    evaluations,
    finished,
    parts,
    weights_file,
)
from distillbench.store.metrics import read_metrics
from distillbench.store.record import read_record
from distillbench.store.settled import Settled, look
from distillbench.store.specifications import by_all_but_code, digest_without_code, read_once
from distillbench.tasks import task


class Store:
    """The folder `results` of a project. planned: {run id: Specification} that need not lie in results/specs."""

    def __init__(self, root=".", planned=()):
        self.results = Path(root) / "results"
        self.runs = self.results / "runs"
        self.known = dict(planned)
        self._alike = {}  # of `with_other_code`
        self.settled = Settled(self.results / "settled.json")

    def run(self, run_id):
        return self.runs / run_id

    def work(self, run_id):
        return self.results / "work" / run_id

    def planned(self, run_id):
        """The frozen specification that planning wrote."""
        return self.results / "specs" / f"{run_id}.json"

    def ids(self):
        """Ids of all runs of which anything is there, finished or partly pulled, sorted."""
        return run_ids(self.runs)

    told = ()  # lines on what is damaged, see `LookingStore`

    def attempt(self, run_id, read, default=None):
        """What read() returns of a run; see `LookingStore`."""
        return read()

    def find(self, name):
        """The id that a directory, an id or any unique prefix of an id or of its hash names."""
        text = str(name).rstrip("/")
        text = text[len(f"{self.runs}/") :] if text.startswith(f"{self.runs}/") else text.removeprefix("results/runs/")
        known = self.ids()
        if text in known:
            return text
        matches = [run for run in known if run.startswith(text) or run.rpartition("-")[2].startswith(text)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(
                f"{name}: {len(matches)} runs begin so, e.g. {matches[0]} and {matches[1]}; give more letters"
            )
        raise UserError(f"{name}: no such run in {self.runs}; `distillbench ls` lists them")

    def specified(self, run_id):
        """Whether there is anything that says what a run is."""
        known = run_id in self.known or self.planned(run_id).exists()
        return known or (self.run(run_id) / "spec.json").exists()

    def specification(self, run_id):
        """Of a run that is there, or planned. The text is checked against the digest in its own name."""
        path = f"{self.runs}/{run_id}/spec.json"
        specification = read_once(path) or self.known.get(run_id) or read_once(str(self.planned(run_id)))
        if specification is None:
            raise UserError(f"{path}: no such file; pull or restore it, or plan a suite that has the run")
        if specification.id != run_id:
            raise UserError(f"{path}: holds the specification of {specification.id}; restore or remove it")
        return specification

    def record(self, run_id):
        """The record of a run, or None where it is not here."""
        path = self.run(run_id) / "record.json"
        return read_record(path) if path.exists() else None

    def evaluation(self, run_id, checkpoint):
        """The directory of a run's evaluation."""
        return self.run(run_id) / evaluations(self._stated(run_id))[checkpoint].folder

    def _stated(self, run_id):
        """The specification as planned, which is enough for paths, where it is known without a look at files."""
        return self.known.get(run_id) or self.specification(run_id)

    def metrics(self, run_id, checkpoint):
        """The entries of a run's metrics.json, or None where it is not evaluated."""
        content = self._metrics_file(run_id, checkpoint)
        return content and content["metrics"]

    def headline(self, run_id, checkpoint):
        """The value of the metric by which runs of its task are compared, or None where it is not evaluated."""
        if not (entries := self.metrics(run_id, checkpoint)):
            return None
        specification = self.specification(run_id)
        wanted = task(specification["task"]).headline, evaluations(specification)[checkpoint].split
        return next((entry["value"] for entry in entries if (entry["metric"], entry["split"]) == wanted), None)

    def _metrics_file(self, run_id, checkpoint):
        if not self.specified(run_id) or not (path := self.evaluation(run_id, checkpoint) / "metrics.json").exists():
            return None
        return read_metrics(path, run_id.rpartition("-")[2])

    def predicted(self, run_id, checkpoint):
        """What tells predictions.npz from others: "weights_sha256" and "ranked_in" as it names them, None for what it
        does not name, and the "fingerprint" of all that is in it; {} where there are no predictions.
        """
        if not self.specified(run_id):
            return {}
        path = self.evaluation(run_id, checkpoint) / "predictions.npz"
        try:
            return identity(path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}; remove the file and evaluate again") from None

    def stale(self, run_id):
        """{(part of the run, checkpoint): why it is not what would be computed now}, in the order of repair.

        Predictions are compared with the weights that the record names, metrics with the predictions of the run and of
        its teacher. What was made from something that is not here is not judged; predictions from before ranks were
        kept count where the weights are here.
        """
        found, directory, record = {}, self.run(run_id), self.record(run_id)
        teacher = self._teacher_predicted(run_id)
        for c in CHECKPOINTS:
            weights, predicted = record["weights"].get(c) if record else None, self.predicted(run_id, c)
            if predicted and weights and predicted["weights_sha256"] not in (None, weights):
                found["predictions", c] = "predictions of other weights"
            elif predicted and not predicted["ranked_in"] and (directory / weights_file(c)).exists():
                found["predictions", c] = "predictions without ranks"
            if not (metrics := self._metrics_file(run_id, c)):
                continue
            own = predicted or {"weights_sha256": weights}
            if ("predictions", c) in found:
                found["metrics", c] = f"metrics of {found['predictions', c]}"
            elif _differ(metrics.get("predictions", {}), own):
                found["metrics", c] = "metrics of other predictions"
            elif _differ(metrics.get("teacher_predictions", {}), teacher):
                found["metrics", c] = "metrics against other predictions of the teacher"
        return dict(sorted(found.items(), key=lambda item: item[0][0] == "metrics"))

    def _teacher_predicted(self, run_id):
        specification = self.specification(run_id)
        teacher = specification.teacher_id
        return (teacher and self.predicted(teacher, specification["teacher"]["checkpoint"])) or {}

    def state(self, run_id):
        """(state, detail): done, stale, trained, in part, failed, running, stopped or missing."""
        directory, work = self.run(run_id), self.work(run_id)
        if (work / FINISHED).exists():
            state = "running" if self.running(run_id) else "stopped"
            return state, "trained; its files are on their way to their place"
        evaluated = self.has(run_id, "metrics")
        if evaluated and not (reasons := self.stale(run_id)):
            return "done", ""
        if evaluated:
            detail = "; ".join(dict.fromkeys(reasons.values()))
            failure = self.failure(run_id)
            return "stale", f"{detail}; the last attempt failed: {failure}" if failure else detail
        trained = (directory / "record.json").exists()
        if trained and not self.running(run_id):
            if failure := self.failure(run_id):
                return "failed", failure
            if not self.untrained([run_id]):
                return "trained", "not evaluated"
            missing = next(name for name in TRAINING.files if not (directory / name).exists())
            return "in part", f"has no {missing}; pull or restore it, or the workflow trains the run again"
        if self.running(run_id):
            return ("trained", "being evaluated") if trained else ("running", self._progress(run_id))
        if failure := self.failure(run_id):
            return "failed", failure
        if work.exists():
            return "stopped", self._progress(run_id)
        before = self.with_other_code(run_id)
        return "missing", f"code changed since {before.rpartition('/')[2]}" if before else ""

    def failure(self, run_id):
        """Why the last attempt at a run failed, or ""."""
        return attempts.failure(run_id, self.work(run_id), self.results / "logs" / "run" / f"{run_id}.log")

    def _progress(self, run_id):
        return attempts.progress(self.work(run_id), self.running(run_id))

    def with_other_code(self, run_id):
        """The id of a run that differs in nothing but versions and sources of its components, or None."""
        folder = self.run(run_id).parent
        if folder not in self._alike:
            self._alike[folder] = by_all_but_code(folder)
        alike = self._alike[folder].get(digest_without_code(self.specification(run_id)), ())
        return next((other for other in alike if other != run_id), None)

    def untrained(self, runs):
        """Those of some runs that the workflow would train: what is missing of them is made from weights alone."""
        return {run for run in runs if "training" in self.absent(run) and not (self.work(run) / FINISHED).exists()}

    def absent(self, run_id):
        """Names of the parts that are to be made for the run to have its metrics, in the order of their making."""
        return self._to_make(run_id, frozenset())

    def missing(self, run_id):
        """The same, with those that are stale, unless the run or its teacher would have to be trained for that."""
        files = self._judged(run_id)
        seen = files and look(files)  # before they are read
        if files and self.settled.holds(run_id, seen):
            return ()
        stale = self.stale(run_id)
        names = self._missing(run_id, frozenset(name for name, _ in stale))
        if files and not (names or stale):
            self.settled.note(run_id, seen)
        return names

    def _judged(self, run_id):
        """The files that decide what is missing of a planned run; none for another, whose files say what it is."""
        if not (specification := self.known.get(run_id)):
            return []
        files = [f"{self.runs}/{run_id}/{name}" for part in parts(specification) for name in part.files]
        if not (teacher := specification.teacher_id):
            return files
        if teacher not in self.known:
            return []
        made_by = evaluations(self.known[teacher])[specification["teacher"]["checkpoint"]]
        return [*files, f"{self.runs}/{teacher}/{made_by.folder}/predictions.npz"]

    def _missing(self, run_id, stale):
        names, teacher = self._to_make(run_id, stale), self.specification(run_id).teacher_id
        compared = not teacher or self.has(teacher, "predictions") or finished(self.run(teacher))
        return names if "training" not in names and compared else self.absent(run_id)

    def has(self, run_id, part):
        """Whether all files of a part, by its name, of a run are here."""
        return self.specified(run_id) and getattr(parts(self._stated(run_id)), part).here(self.run(run_id))

    def _to_make(self, run_id, stale):
        names = []
        for part in reversed(parts(self._stated(run_id))):  # each is made from the one before it
            if part.name not in stale and part.here(self.run(run_id)):
                break
            names.insert(0, part.name)
        return tuple(names)

    def running(self, run_id):
        """Whether a process works on the run now."""
        return claimed(self.work(run_id))

    def older(self, run_id):
        """What of a run's code is another version here, for people; "" if nothing."""
        return ", ".join(older(self.specification(run_id)))

    def other_realisation(self, run_id):
        """A line if the run was distilled from other weights than its teacher's run holds now, else None."""
        specification = self.specification(run_id)
        teacher = specification.teacher_id
        record, made_by = self.record(run_id), self.record(teacher) if teacher else None
        if not record or not made_by:
            return None
        used, holds = record["teacher_weights"] or "unknown", made_by["weights"][specification["teacher"]["checkpoint"]]
        if used == holds:
            return None
        weights = f"its teacher had weights {used[:12]}, {teacher} holds {holds[:12]}"
        return f"{run_id}: same id, different realisation: {weights}"

    def warnings(self, run_id):
        """Lines on what a finished run's numbers do not say: another realisation of its teacher, older code."""
        older = self.older(run_id)
        lines = (self.other_realisation(run_id), older and f"{run_id}: older code: {older}")
        return [line for line in lines if line]


def _differ(stated, here):
    """Whether what a file says it was made from is not what is here; what is not known here is not judged."""
    return any(value and stated.get(name) != value for name, value in here.items())
