"""A judge's model, asked until its reply can be read, or until there are no tries left."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from evaluator.verdict import NO_COST, Cost
from proposer.generate import Generate, Prompt, Response, Sampling

Read = TypeVar("Read")

RETRY_TEMPERATURE = 0.7
"""Of replies that are asked for again, and of votes after the first: greedy, the same words would come back."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[Read]):
    """What was made of a reply, and what it took."""

    read: Read | None
    """None: no reply could be read."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Asker:
    """A model, and how it is asked."""

    generate: Generate
    tries: int
    """Replies asked for before it is given up."""
    max_tokens: int

    async def ask(
        self, prompt: Prompt, read: Callable[[str], Read | None], number: int = 0, schema: str | None = None
    ) -> Asked[Read]:
        """The first reply that `read` makes something of. Raises ModelError if the model is out.

        Args:
            prompt: What is asked.
            read: A reply -> what it says; None: off the menu.
            number: Which vote this is, from 0; the first is greedy.
            schema: JSON schema of the reply (`Sampling.schema`).
        """
        cost = NO_COST
        for attempt in range(self.tries):
            temperature = RETRY_TEMPERATURE if number or attempt else 0.0
            seed = number * self.tries + attempt
            reply = await self.generate(prompt, Sampling(temperature, self.max_tokens, seed, schema))
            cost += _cost(reply)
            if (said := read(reply.text)) is not None:
                return Asked(said, cost)
        return Asked(None, cost)


def _cost(reply: Response) -> Cost:
    usage = reply.usage
    return Cost(
        replies=1,
        prompt_tokens=usage.prompt_tokens if usage else None,
        reply_tokens=usage.reply_tokens if usage else None,
        seconds=0.0,
    )
