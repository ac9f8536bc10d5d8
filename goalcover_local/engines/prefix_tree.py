"""Token sequences merged where they begin alike, so that every distinct prefix goes through the model once.

All prompts of a question begin with the same *trunk* (rubric and worked examples). On the trunk stand *trees*, one
for each sample: its text is the stem, the subgoals are branches, and the permitted answers fork at the tips. A pass
through the model takes many trees side by side, each node seeing the trunk and its own ancestors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences with a common beginning, as nodes in depth-first order.

    `tokens`, `parents` and `depths` have shape (n_nodes,); a parent of -1 is the trunk's end, and depths count from
    there. `paths[k]` are the nodes of the k-th sequence, from its first token beyond the trunk to its last.
    """

    tokens: np.ndarray
    parents: np.ndarray
    depths: np.ndarray
    paths: tuple[np.ndarray, ...]

    def visible(self) -> np.ndarray:
        """Which node sees which: boolean, shape (n_nodes, n_nodes), itself and its ancestors."""
        n = len(self.tokens)
        seen = np.zeros((n, n), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, node] = True
        return seen


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens two sequences share."""
    n = min(len(a), len(b))
    differing = np.flatnonzero(a[:n] != b[:n])
    return int(differing[0]) if len(differing) else n


def grow(sequences: Sequence[np.ndarray], *, worth: float = 0.25) -> Iterator[Tree]:
    """Trees that hold the sequences in their order.

    A sequence joins the tree of the one before it when they share at least the fraction `worth` of its tokens; else it
    starts a new tree, since a few words in common do not repay a larger attention mask.
    """
    group: list[tuple[np.ndarray, int]] = []
    for sequence in sequences:
        shared = common_prefix(sequence, group[-1][0]) if group else 0
        if group and shared < max(1.0, worth * len(sequence)):
            yield _merge(group)
            group, shared = [], 0
        group.append((sequence, shared))
    if group:
        yield _merge(group)


def _merge(group: Sequence[tuple[np.ndarray, int]]) -> Tree:
    tokens: list[np.ndarray] = []
    parents: list[np.ndarray] = []
    depths: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    n_nodes = 0
    previous = np.empty(0, dtype=np.int64)
    for sequence, shared in group:
        new = np.arange(n_nodes, n_nodes + len(sequence) - shared)
        path = np.concatenate([previous[:shared], new])
        if len(new):
            tokens.append(sequence[shared:])
            depths.append(np.arange(shared, len(sequence)))
            parents.append(np.concatenate([[path[shared - 1] if shared else -1], new[:-1]]))
        n_nodes += len(new)
        paths.append(path)
        previous = path
    return Tree(np.concatenate(tokens), np.concatenate(parents), np.concatenate(depths), tuple(paths))


def pack(trees: Sequence[Tree], n_tokens: int) -> Iterator[list[Tree]]:
    """The trees in their order, side by side in passes of at most `n_tokens` nodes (one tree may exceed it alone)."""
    batch: list[Tree] = []
    size = 0
    for tree in trees:
        if batch and size + len(tree.tokens) > n_tokens:
            yield batch
            batch, size = [], 0
        batch.append(tree)
        size += len(tree.tokens)
    if batch:
        yield batch
