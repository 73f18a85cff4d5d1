"""What ShuffleNets do with channels."""


def shuffled(x, groups):
    """Maps [N, D, H, W] whose channels are dealt out: first the first of each group, then the second of each, ...

    The maps returned have channels last in memory, as the engine has all maps.
    """
    return x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
