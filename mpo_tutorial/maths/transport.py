"""Carrying through a cut what an optimiser remembers of each core: its moments turn and shrink as the core does.

After a cut the bonds stand in other bases. For each bond there are a matrix F into the new basis and a matrix G back, F G = 1, by
which each new core is F_left A G_right of the old core A. Seen from the new cores the old ones are G_left A' F_right, so
gradients, and their mean, go as G_left^T g F_right^T. Their squares have no rule of their own; if the numbers of a gradient are
taken to be uncorrelated, they go the same way with all matrices squared, number by number.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import is_integer


class Turn(NamedTuple):
    """From one basis of a bond to another.

    Parameters
    ----------
    into : Tensor of shape (new bond, old bond)
        F.
    back : Tensor of shape (old bond, new bond)
        G.
    """

    into: Tensor
    back: Tensor


def turns(old: MPO, new: MPO) -> list[Turn]:
    """Of every bond, the outer ones included, how its basis has changed: n + 1 of them.

    Each is found, from the ends to the central core, as what brings the old core, one side of it turned already, nearest to the
    new core, by least squares. Where the new chain is the old one cut, with the centre in the same place, that is what the cut
    did.

    Raises
    ------
    ValueError
        If the legs differ.
    """
    if old.shape != new.shape:
        raise ValueError(f"a chain is cut at the same legs, got {new.shape} for {old.shape}")
    one = torch.ones(1, 1, dtype=torch.float64)
    n, centre = len(old.cores), old.shape.central
    found = [Turn(one, one)] * (n + 1)
    # Small matrices are decomposed here, which takes a GPU far longer than a CPU.
    before, after = ([core.detach().double().cpu() for core in mpo.cores] for mpo in (old, new))
    for k in range(centre):
        turned = torch.tensordot(found[k].into, before[k], dims=1)
        back = torch.linalg.pinv(turned.flatten(0, 2)) @ after[k].flatten(0, 2)
        found[k + 1] = Turn(torch.linalg.pinv(back), back)
    for k in range(n - 1, centre, -1):
        turned = torch.tensordot(before[k], found[k + 1].back, dims=1)
        into = after[k].flatten(1) @ torch.linalg.pinv(turned.flatten(1))
        found[k] = Turn(into, torch.linalg.pinv(into))
    device = old.central.device
    return [Turn(turn.into.to(device), turn.back.to(device)) for turn in found]


def carried(moments: Sequence[Tensor], found: Sequence[Turn], power: int = 1) -> list[Tensor]:
    """What has been gathered of the old cores' gradients, as if it had been gathered of the new cores'.

    Parameters
    ----------
    moments : sequence of n Tensor
        Of the shapes of the old cores.
    found : sequence of n + 1 Turn
    power : {1, 2}
        Means of gradients, or of their squares.

    Raises
    ------
    ValueError
        If the power is another.
    """
    if not is_integer(power) or power not in (1, 2):
        raise ValueError(f"moments are of the gradients or of their squares, power 1 or 2, got {power!r}")
    carried = []
    for moment, (left, right) in zip(moments, pairwise(found), strict=True):
        back, into = left.back**power, right.into**power
        carried.append(torch.einsum("ax,aijb,yb->xijy", back, moment.double(), into).to(moment.dtype))
    return carried
