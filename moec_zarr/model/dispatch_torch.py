"""Which expert evaluates which points, as blocks of a size that is known beforehand."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Blocks", "blocks_of", "in_blocks"]

_BLOCK = 128  # points at least that share a copy of their expert's weights


class Blocks(NamedTuple):
    """Points of some networks in blocks that belong to one expert each.

    Attributes
    ----------
    source : int64 tensor, shape (networks, blocks * size)
        The point in each place of the blocks; the first one where a block is not full.
    expert : int64 tensor, shape (networks, blocks)
        The expert of each block.
    place : int64 tensor, shape (networks, points)
        Where each point stands in the blocks.
    load : int64 tensor, shape (networks, experts)
        Number of points of each expert.
    """

    source: torch.Tensor
    expert: torch.Tensor
    place: torch.Tensor
    load: torch.Tensor


def blocks_of(chosen: torch.Tensor, experts: int, size: int) -> Blocks:
    """Sort points by their experts into blocks of `size`, of which the last of an expert is full in part.

    There are as many blocks as the experts could need at most, so that the host need not know how many
    points each of them has (Gale et al., MegaBlocks, arXiv 2211.15841, section 4).

    Parameters
    ----------
    chosen : int64 tensor, shape (networks, points)
        The expert of each point.
    """
    networks, points = chosen.shape
    device = chosen.device
    count = min(points // size + experts, points)
    ordered, order = chosen.sort(dim=1, stable=True)
    edges = torch.arange(experts + 1, device=device).repeat(networks, 1)
    bounds = torch.searchsorted(ordered, edges)
    load = bounds.diff(dim=1)
    needed = (load + (size - 1)).div(size, rounding_mode="floor")
    last = needed.cumsum(dim=1)
    shift = size * (last - needed) - bounds[:, :-1]
    slot = shift.gather(1, ordered) + torch.arange(points, device=device)
    source = order.new_zeros(networks, count * size).scatter_(1, slot, order)
    numbers = torch.arange(count, device=device).repeat(networks, 1)
    expert = torch.searchsorted(last, numbers, right=True).clamp_(max=experts - 1)
    place = torch.empty_like(slot).scatter_(1, order, slot)
    return Blocks(source, expert, place, load)


def in_blocks(
    points: torch.Tensor, chosen: torch.Tensor | None, experts: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | slice]:
    """Sort points of one network into blocks; one of all points if there is one expert.

    Parameters
    ----------
    points : tensor, shape (points, inputs)
    chosen : int64 tensor, shape (points,), or None
        The expert of each point.

    Returns
    -------
    blocks : tensor, shape (blocks, size, inputs)
    expert : int64 tensor, shape (blocks,)
    place : int64 tensor, shape (points,), or slice
        Where each point stands in the blocks, one after the other.
    """
    if chosen is None:
        return points[None], torch.zeros(1, dtype=torch.int64, device=points.device), slice(None)
    size = min(max(_BLOCK, width), len(chosen))
    blocks = blocks_of(chosen[None], experts, size)
    return points[blocks.source[0]].reshape(-1, size, points.shape[1]), blocks.expert[0], blocks.place[0]
