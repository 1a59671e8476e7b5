"""How samples are put together: trees that lose no token, batches that lose no sample."""

import random

import pytest

from rl.batches import batches, micro_batches, rows_of
from rl.manifest import Sample


def sample(name: str, prompt: tuple[int, ...], reply: tuple[int, ...], picture: str = "p") -> Sample:
    return Sample(
        trajectory_id=name,
        step=0,
        prompt_ids=prompt,
        token_ids=reply,
        logprobs=(),
        pictures=(picture,) if picture else (),
        weights=0,
    )


def test_a_tree_is_the_one_worked_out_by_hand() -> None:
    given = [sample("a", (1, 2), (3,)), sample("b", (1, 2), (4,)), sample("c", (1, 5), (6,))]
    (row,) = rows_of(given, shares_prefixes=True)
    assert row.ids == [1, 2, 5]
    assert row.positions == [0, 1, 1]
    assert row.paths == [[0, 1], [0, 1], [0, 2]]


def test_what_shares_less_than_half_begins_another_tree() -> None:
    given = [sample("a", (1, 2), (3,)), sample("b", (1, 5, 6), (7,)), sample("c", (1, 5, 8), (9,))]
    assert [row.ids for row in rows_of(given, shares_prefixes=True)] == [[1, 2], [1, 5, 6, 8]]


def crowd(seed: int) -> list[Sample]:
    """Samples that share beginnings of many lengths, with and without pictures."""
    rng = random.Random(seed)
    return [
        sample(
            f"t{n}",
            tuple(rng.choice((1, 2)) for _ in range(rng.randint(1, 6))),
            tuple(rng.choice((1, 2)) for _ in range(rng.randint(1, 4))),
            rng.choice(("p", "q", "")),
        )
        for n in range(24)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_along_its_path_a_sample_reads_its_own_tokens_at_their_positions(seed: int) -> None:
    given = crowd(seed)
    rows = rows_of(given, shares_prefixes=True, limit=12)
    assert sorted(one.trajectory_id for row in rows for one in row.samples) == sorted(s.trajectory_id for s in given)
    for row in rows:
        assert len({one.pictures for one in row.samples}) == 1
        assert len(row) <= 12
        for one, path in zip(row.samples, row.paths, strict=True):
            assert tuple(row.ids[place] for place in path) == one.prompt_ids + one.token_ids[:-1]
            assert [row.positions[place] for place in path] == list(range(len(path)))


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_holds_each_beginning_once(seed: int) -> None:
    for row in rows_of(crowd(seed), shares_prefixes=True):
        tokens = [one.prompt_ids + one.token_ids[:-1] for one in row.samples]
        assert len(row) == len({sequence[: n + 1] for sequence in tokens for n in range(len(sequence))})


@pytest.mark.parametrize("shares_prefixes", [True, False])
def test_every_epoch_has_each_sample_once_and_the_seed_alone_decides_the_order(shares_prefixes: bool) -> None:
    given = crowd(0)
    once, again, other = (list(batches(given, 5, 2, seed, shares_prefixes=shares_prefixes)) for seed in (3, 3, 4))
    assert once == again != other
    for epoch in (once[:5], once[5:]):
        assert sorted(s.trajectory_id for batch in epoch for s in batch) == sorted(s.trajectory_id for s in given)
        assert sorted(map(len, epoch)) == [4, 5, 5, 5, 5]


@pytest.mark.parametrize("shares_prefixes", [True, False])
def test_parts_keep_to_the_limit_and_lose_no_sample(shares_prefixes: bool) -> None:
    given = crowd(1)
    parts = list(micro_batches(given, 20, shares_prefixes=shares_prefixes))
    assert sorted(s.trajectory_id for part in parts for s in part) == sorted(s.trajectory_id for s in given)
    for part in parts:
        rows = rows_of(part, shares_prefixes=shares_prefixes)
        assert len(rows) * max(map(len, rows)) <= 20
