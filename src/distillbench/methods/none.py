"""NONE: training on the labels alone. It makes the teachers and the students that learn alone."""

from distillbench.methods.base import Method


class Vanilla(Method):
    name = "NONE"
    version = 1

    def losses(self, student, teacher, batch, schedule):
        return {"ce": batch.cross_entropy(student.logits)}
