"""The processes that train a run together: one."""


class Alone:
    """A group of one process: what is over all processes is here already."""

    def mean(self, gradients):
        """Lists of gradients (None where a parameter has none), averaged over the processes."""
        return gradients

    def gather(self, tensor):
        """A tensor [N, ...] of the batch's images on all processes."""
        return tensor

    def mine(self, tensor):
        """Of a gathered tensor, what belongs to this process's images."""
        return tensor
