"""Prefix trees hold every sequence, in order, and no node sees what is not before it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local.engines.prefix_tree import common_prefix, grow, pack

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(np.array), min_size=1, max_size=12)
"""Of three tokens only, so that beginnings are often shared, and one sequence is often a beginning of another."""

WORTHS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def test_a_common_prefix_is_counted() -> None:
    assert common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4, 5])) == 2
    assert common_prefix(np.array([1, 2]), np.array([1, 2, 4])) == 2
    assert common_prefix(np.array([1]), np.array([2])) == 0
    assert common_prefix(np.array([], dtype=int), np.array([2])) == 0


@given(sequences=SEQUENCES, worth=WORTHS)
def test_every_sequence_is_on_its_path_in_order(sequences: list[np.ndarray], worth: float) -> None:
    trees = list(grow(sequences, worth=worth))
    found = [tree.tokens[path].tolist() for tree in trees for path in tree.paths]
    assert found == [sequence.tolist() for sequence in sequences]


@given(sequences=SEQUENCES, worth=WORTHS)
def test_paths_climb_from_parent_to_child_and_depths_count_along(sequences: list[np.ndarray], worth: float) -> None:
    for tree in grow(sequences, worth=worth):
        assert len(tree.tokens) == len(tree.parents) == len(tree.depths)
        for path in tree.paths:
            assert tree.parents[path].tolist() == [-1, *path[:-1].tolist()]
            assert tree.depths[path].tolist() == list(range(len(path)))


@given(sequences=SEQUENCES, worth=WORTHS)
def test_a_node_sees_itself_and_its_ancestors_and_nothing_else(sequences: list[np.ndarray], worth: float) -> None:
    for tree in grow(sequences, worth=worth):
        seen = tree.visible()
        for node in range(len(tree.tokens)):
            ancestors, at = set(), node
            while at >= 0:
                ancestors.add(at)
                at = int(tree.parents[at])
            assert set(np.flatnonzero(seen[node]).tolist()) == ancestors


@given(sequences=SEQUENCES)
def test_neighbours_share_every_token_that_they_have_in_common(sequences: list[np.ndarray]) -> None:
    for tree in grow(sequences, worth=0.0):
        n_new = [len(tree.paths[0])]
        n_new += [len(b) - common_prefix(tree.tokens[a], tree.tokens[b]) for a, b in pairwise(tree.paths)]
        assert len(tree.tokens) == sum(n_new)


def test_sequences_that_share_little_start_a_tree_of_their_own() -> None:
    one, akin, alien = np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), np.array([1, 6, 7, 8, 9, 6, 7, 8])
    assert [len(tree.paths) for tree in grow([one, akin, alien])] == [2, 1]
    assert [len(tree.paths) for tree in grow([one, akin, alien], worth=0.1)] == [3]
    assert [len(tree.tokens) for tree in grow([one, akin])] == [5]


def test_nothing_grows_from_nothing() -> None:
    assert list(grow([])) == []
    assert list(pack([], 5)) == []


@given(sequences=SEQUENCES, most=st.integers(1, 30))
def test_packing_keeps_the_order_and_the_limit(sequences: list[np.ndarray], most: int) -> None:
    trees = list(grow(sequences))
    passes = list(pack(trees, most))
    assert [id(tree) for some in passes for tree in some] == [id(tree) for tree in trees]
    for some in passes:
        assert len(some) == 1 or sum(len(tree.tokens) for tree in some) <= most
    sizes = [sum(len(tree.tokens) for tree in some) for some in passes]
    firsts = [len(some[0].tokens) for some in passes]
    assert all(size + following > most for size, following in zip(sizes, firsts[1:], strict=False))
