"""What the sites' gold tasks are put together from: moves, and tasks without id and kind."""

from collections.abc import Sequence

from sites.contract import Goal, GoldTask, Move, State

Moves = tuple[Move, ...]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MAX_COUNT = 60
"""Nothing that a task counts comes near it."""


def click(target: str, thought: str) -> Move:
    """Click what is called target."""
    return Move("click", target, thought=thought)


def enter(target: str, text: str, thought: str) -> Move:
    """Type text into the field called target."""
    return Move("type", target, text, thought)


def choose(target: str, text: str, thought: str) -> Move:
    """Choose an option of the list called target."""
    return Move("select", target, text, thought)


def answer(text: str, thought: str) -> Move:
    """End with an answer."""
    return Move("answer", text=text, thought=thought)


def done(thought: str) -> Move:
    """End a task that asks for no answer."""
    return answer("done", thought)


def said(count: int) -> tuple[str, ...]:
    """A count as an answer may give it, in digits or as a word."""
    return (str(count), NUMBERS[count]) if count < len(NUMBERS) else (str(count),)


def other_counts(count: int) -> list[str]:
    """Every wrong count, so that an answer that names several is wrong."""
    return [text for other in range(MAX_COUNT) if other != count for text in said(other)]


def said_of_two(right: str, wrong: str, *compared: str) -> tuple[str, ...]:
    """Of two things the right one as an answer may give it: alone, or before the other, by words such as `compared`."""
    between = (", not ", *(f" {words} " for words in compared))
    articles = ("", "the ")
    return (right, *(f"{a}{right}{words}{b}{wrong}" for words in between for a in articles for b in articles))


def draft(
    instruction: str,
    state: State,
    solution: Moves,
    near_misses: Sequence[Moves],
    answers: Sequence[str] = (),
    distractors: Sequence[str] = (),
) -> GoldTask:
    """A task without id and kind."""
    goal = Goal(state, tuple(answers), tuple(distractors))
    return GoldTask("", "", instruction, goal, solution, tuple(near_misses))
