"""What the process of a rung does: a trace of losses for the gate, and steps against the clock."""

import math
import time
import warnings
from abc import ABC, abstractmethod
from itertools import islice

import torch

LEAD = {"cuda": 20}  # untimed steps before the timed ones, elsewhere one: what was loaded ahead is used up


class Steps(ABC):
    """Training steps of a rung on `device`. workers: of its loader, None where it has none."""

    workers = None

    def __init__(self, job):
        self.job, self.device, self.counts, self.rate = job, torch.device(job.device), None, None

    @abstractmethod
    def losses(self, size):
        """Yield the loss, a float, of each step with the next `size` images of the resident feed."""

    @abstractmethod
    def steps(self, size):
        """Yield the number of images of each step, as this rung trains with batches of `size`."""

    def trace(self, count, size):
        """The losses of the first steps."""
        return list(islice(self.losses(size), count))

    def images_per_second(self, seconds):
        """Over so many seconds of steps, as far as earlier ones tell; the first call only finds that out."""
        size = self.job.size.batch
        self.counts = self.counts or self.steps(size)
        self._run(LEAD.get(self.device.type, 1))
        count = max(2, math.ceil(seconds * self.rate / size)) if self.rate else 2 * LEAD.get(self.device.type, 1)
        self.rate = self._run(count)
        return self.rate

    def _run(self, count):
        self._wait()
        start = time.perf_counter()
        images = sum(islice(self.counts, count))
        self._wait()
        return images / (time.perf_counter() - start)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Loading(Steps):
    """Steps fed by a loader with worker processes, as many as serve it best."""

    TRIAL = 4  # times the lead: steps that a number of workers is tried for

    def choose_workers(self, candidates):
        """Try each number and keep the fastest, which is returned."""
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: they are tried
        rates = {}
        for self.workers in candidates:
            self.counts = self.steps(self.job.size.batch)
            self._run(LEAD.get(self.device.type, 1))
            rates[self.workers] = self._run(self.TRIAL * LEAD.get(self.device.type, 1))
            self.counts.close()
        self.workers, self.counts = max(rates, key=rates.get), None
        return self.workers
