"""What the package's networks share: features first, then a head on them, so that either can be had without the other.

A family derives from `Network` and has `extract`; what it gives is in `distillbench.models`.
"""

from abc import abstractmethod
from functools import partial

import torch.nn as nn


class Network(nn.Module):
    """head: the classifier's name in the state dict."""

    head = "fc"

    def forward(self, images):
        features = self.extract(images)
        return self.classify(features), features

    @abstractmethod
    def extract(self, images):
        """The features of images [N, 3, H, W]."""

    def classify(self, features):
        """The logits [N, C] of what `extract` gave."""
        return getattr(self, self.head)(features["pooled_feat"])

    def logits(self, images):
        """The logits [N, C] of images; in evaluation mode alone, where features that they do not need move nothing."""
        return self.classify(self.extract(images))


def logits_alone(network, images):
    """The logits of a network in evaluation mode; of other people's, its features are computed with them."""
    return network.logits(images) if _has_parts(network) else network(images)[0]


def in_two_parts(network, images):
    """(features, function of no arguments that gives the logits): the head is computed when that is called.

    That of other people's networks is computed with the features.
    """
    if _has_parts(network):
        features = network.extract(images)
        return features, partial(network.classify, features)
    logits, features = network(images)
    return features, lambda: logits


def _has_parts(network):
    """Whether its forward is that of `Network`, which no subclass or caller has replaced."""
    return getattr(network.forward, "__func__", None) is Network.forward
