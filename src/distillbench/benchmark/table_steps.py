"""The making of a logit table, in a process of its own."""

import time

import torch

from distillbench.benchmark.experiment import TABLE, feed_of, table_header, teacher_of
from distillbench.engine.device import prepare_device
from distillbench.engine.table import write_table


class Table:
    """Of the resident images' views, by a teacher as the engine has it."""

    def __init__(self, job):
        self.job, specification = job, job.specification
        self.device = prepare_device(specification, job.device)
        self.feed, self.teacher = feed_of(job, specification), teacher_of(job).to(memory_format=torch.channels_last)
        self.header = table_header(specification, self.teacher, self.feed)

    def write(self):
        """(views, seconds)"""
        start = time.perf_counter()
        path, feed = self.job.folder / TABLE, self.feed
        write_table(path, self.teacher, feed.split, feed.augmentation, self.header, report=lambda _: None)
        images, views, _ = self.header["shape"]
        return images * views, time.perf_counter() - start
