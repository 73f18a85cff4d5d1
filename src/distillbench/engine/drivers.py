"""What drives the steps of a run: the step is one function, called eagerly or replayed from a CUDA graph."""

import torch

from distillbench.engine.replay import Replayed, untouched
from distillbench.errors import UserError

DRIVERS = ("auto", "eager", "graph")
WARM_UP = 3  # steps before a capture, in which libraries choose their kernels and take their memory


def drive(learner, driver="auto", report=print):
    """The driver of a learner's steps: `step` as of `Learner`; `name`, "eager" or "graph"; `why`, for the record.

    driver: of `DRIVERS`; "auto" is a graph on CUDA, unless the method declares that it cannot be captured or the
    capture fails, which is reported.
    Raises UserError where a graph is asked for and cannot be had, also by the first step.
    """
    if driver == "eager":
        return Eager(learner, "asked for")
    if learner.feed.device.type != "cuda":
        obstacle = f"the device is the {learner.feed.device.type}, which has no CUDA graphs"
    elif learner.group.size > 1:
        obstacle = (
            f"{learner.group.size} processes train the run, and no capture of their exchange has been seen to work"
        )
    elif not learner.method.capturable:
        obstacle = f"{learner.name} declares capturable = False"
    elif learner.draws:
        obstacle = "the student draws random numbers in a step (dropout, stochastic depth)"
    else:
        return Graph(learner, driver == "graph", report)
    if driver == "graph":
        raise UserError(f"--driver graph: {obstacle}; leave it out or choose eager")
    return Eager(learner, obstacle)


class Eager:
    name = "eager"

    def __init__(self, learner, why):
        self.step, self.why = learner.step, why


class Graph(Replayed):
    """Steps captured in CUDA graphs, one for each size of a batch and for whether it is observed.

    required: whether a capture that fails is an error; else all steps are eager from then on.
    """

    name = "graph"

    def __init__(self, learner, required, report):
        super().__init__(learner)
        self.required, self.report, self.why = required, report, "asked for" if required else "the device is a GPU"
        self.stream, self.pool = torch.cuda.Stream(learner.feed.device), torch.cuda.graph_pool_handle()

    def step(self, size, observing=True):
        try:
            super().step(size, observing)
        except CaptureFailed as failure:
            if self.required:
                raise UserError(f"--driver graph: {failure}; leave it out or choose eager") from None
            self.report(f"the steps are not replayed from a CUDA graph: {failure}")
            self.name, self.why, self.step = "eager", str(failure), self.learner.step
            self.recordings.clear()
            self.step(size, observing)

    def _recorded(self, size, observing):
        current = torch.cuda.current_stream(self.learner.feed.device)
        for _ in range(WARM_UP):
            with untouched(self.learner):
                self.stream.wait_stream(current)
                with torch.cuda.stream(self.stream):
                    self.learner.step(size, observing)
                    added = frozenset(self.learner.sums.counted)
                current.wait_stream(self.stream)
        graph, counted = torch.cuda.CUDAGraph(), set(self.learner.sums.counted)
        try:
            # torch leaves the capturing stream current where the end of a capture fails; the outer context does not.
            # One pool for all graphs: they never run at once, and nothing in it outlives a replay.
            with torch.cuda.stream(current), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                self.learner.step(size, observing)
        except RuntimeError as error:
            graph.reset()  # or random generators stay in the state of a capture
            self.learner.trainer.forget_gradients()
            reason = error.__context__ or error  # the end of a capture fails, too, after what could not be captured
            raise CaptureFailed(" ".join(str(reason).split())[:200]) from None
        finally:
            self.learner.sums.counted = counted
        return graph.replay, added


class CaptureFailed(Exception):
    """Why a step cannot be captured."""
