"""How samples are put together: the batches of an update, the parts of a batch, the rows of a part. No torch.

A row is what a network reads in one go. Plainly it is one sample. Where prefixes are shared it is a tree of samples
with the same pictures: what several begin with stands in it once, each continuation is behind it, and a token sees the
tokens between itself and the root only. Log-probs and gradients are those of the samples read one by one, but for
rounding. Attention is computed between all tokens of a row and then masked, so a sample that shares less than half of
its tokens would cost more in a tree than it saves: it begins another one.

Example: prompts and responses [1 2 | 3], [1 2 | 4] and [1 5 | 6] are the row 1 2 5 of positions 0 1 1, since a
response's last token predicts nothing; the samples' paths are its places (0, 1), (0, 1) and (0, 2).
"""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rl.manifest import Sample


@dataclass(slots=True)
class Row:
    """Token ids of a tree of samples, parents before children."""

    samples: list[Sample] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Of each id in the samples that it is of."""
    paths: list[list[int]] = field(default_factory=list)
    """For each sample the places in `ids` where its tokens stand, in order, the response's last one left out."""

    def __len__(self) -> int:
        """Tokens that are computed."""
        return len(self.ids)

    def add(self, sample: Sample) -> None:
        """Hang a sample onto what it shares with the one before it; in the order of `_tokens` that is all it shares."""
        tokens = _tokens(sample)
        num_shared = self._num_shared(tokens)
        new = range(len(self.ids), len(self.ids) + len(tokens) - num_shared)
        self.paths.append([*(self.paths[-1][:num_shared] if self.paths else ()), *new])
        self.ids += tokens[num_shared:]
        self.positions += range(num_shared, len(tokens))
        self.samples.append(sample)

    def takes(self, sample: Sample, limit: float) -> bool:
        """Whether a sample belongs in this tree, which is to have so many tokens at most."""
        tokens = _tokens(sample)
        num_shared = self._num_shared(tokens)
        return 2 * num_shared >= len(tokens) and len(self) + len(tokens) - num_shared <= limit

    def _num_shared(self, tokens: Sequence[int]) -> int:
        if not self.samples:
            return 0
        pairs = zip(tokens, (self.ids[place] for place in self.paths[-1]), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tokens(sample: Sample) -> tuple[int, ...]:
    return sample.prompt_ids + sample.token_ids[:-1]


def rows_of(samples: Iterable[Sample], *, shares_prefixes: bool, limit: float = math.inf) -> list[Row]:
    """Samples as rows, one each or, where prefixes are shared, those with the same pictures and beginnings together.

    Args:
        samples: In any order.
        shares_prefixes: Whether a row may hold several.
        limit: Tokens that no row of several samples exceeds.
    """
    if not shares_prefixes:
        return [_row([sample]) for sample in samples]
    alike: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        alike[sample.pictures].append(sample)
    return [row for group in alike.values() for row in _trees(sorted(group, key=_tokens), limit)]


def _row(samples: Iterable[Sample]) -> Row:
    row = Row()
    for sample in samples:
        row.add(sample)
    return row


def _trees(samples: Iterable[Sample], limit: float) -> Iterator[Row]:
    row = Row()
    for sample in samples:
        if row.samples and not row.takes(sample, limit):
            yield row
            row = Row()
        row.add(sample)
    yield row


def batches(
    samples: Sequence[Sample], batch_size: int, epochs: int, seed: int, *, shares_prefixes: bool = False
) -> Iterator[list[Sample]]:
    """Each epoch's samples in a new order, `batch_size` at a time.

    Where prefixes are shared, a batch holds neighbours by pictures and prompt, since only what is in one batch can
    share anything; then it is the order of batches that is drawn, and where the first one begins.
    """
    order = random.Random(seed)
    ordered = sorted(samples, key=lambda sample: (sample.pictures, _tokens(sample)))
    for _ in range(epochs):
        if not shares_prefixes:
            yield from _chunks(order.sample(list(samples), len(samples)), batch_size)
            continue
        first = order.randrange(len(ordered))
        chunks = list(_chunks(ordered[first:] + ordered[:first], batch_size))
        yield from order.sample(chunks, len(chunks))


def _chunks(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    for start in range(0, len(samples), size):
        yield list(samples[start : start + size])


def micro_batches(
    batch: Sequence[Sample], micro_tokens: int, *, shares_prefixes: bool = False
) -> Iterator[list[Sample]]:
    """A batch cut so that no part's rows, padded to the longest, exceed `micro_tokens`; similar lengths together."""
    part: list[Row] = []
    for row in sorted(rows_of(batch, shares_prefixes=shares_prefixes, limit=micro_tokens), key=len):
        if part and len(row) * (len(part) + 1) > micro_tokens:
            yield [sample for whole in part for sample in whole.samples]
            part = []
        part.append(row)
    if part:
        yield [sample for whole in part for sample in whole.samples]
