"""Optimizers, one file each: how gradients move parameters, at a learning rate that is a tensor."""
