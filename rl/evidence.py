"""What a judge is taught to claim before its verdict (evaluator/claims.py): the true claims about an attempt.

Of a question: the line that tells, and the answer it gives, whatever was answered. Of an errand: the line that its
success would newly show, and the closest line that is shown.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from evaluator.claims import NOTHING, Claims, deed_in_words, page_lines, words
from evaluator.truth import gold_task
from policy.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Reason:
    """The words before a verdict."""

    text: str
    fits: bool
    """Whether a success may be judged with these words: the page tells the right answer, or shows what is wanted."""


def reason(attempt: Trajectory, solution: Trajectory) -> Reason:
    """The reason for a verdict on an attempt at a gold task.

    Args:
        attempt: Any attempt at it.
        solution: A successful one, which shows what success looks like.
    """
    given, after = NOTHING if attempt.answer is None else attempt.answer, deed_in_words(attempt)
    answers = gold_task(solution.task.gold_id or "").goal.answers
    if answers:
        seen, right = _told(attempt, answers, solution.answer or "")
        return Reason(str(Claims(seen, right=right, given=given, after=after)), fits=right != "")
    wanted = _news(solution)
    seen = _closest_to(wanted, page_lines(attempt.final))
    return Reason(str(Claims(seen, wanted, given=given, after=after)), wanted == seen)


def telling(instruction: str) -> set[str]:
    """The words of an instruction that say what it is about: names, numbers and longer words."""
    return {
        word.casefold() for word in re.findall(r"\w+(?:[.-]\w+)*", instruction) if len(word) > 3 or not word.islower()
    }


def _told(attempt: Trajectory, answers: Sequence[str], right: str) -> tuple[tuple[str, ...], str]:
    """What the last page tells of a question, and the right answer, empty if the page doesn't tell it."""
    lines, wanted = page_lines(attempt.final), telling(attempt.task.instruction)
    accepted = [words(answer) for answer in answers]
    holding = [line for line in lines if any(answer <= words(line) for answer in accepted)]
    first = _closest(wanted, holding or lines) or next(iter(holding), "")
    rest = wanted - words(first)
    second = _closest(rest, lines)
    seen = [first, second] if len(rest & words(second)) > 1 else [first]
    is_choice = words(right) <= words(attempt.task.instruction)  # told only by both that are to be compared
    is_told = bool(holding) and (len(seen) > 1 or not is_choice)
    return tuple(filter(None, seen)), right if is_told else ""


def _news(solution: Trajectory) -> tuple[str, ...]:
    """What a success shows that wasn't there before its last deed: the new line that says most about the task.

    Where the task is to be somewhere, that place's title comes first.
    """
    before = set(page_lines(solution.steps[-2].observation)) if len(solution.steps) > 1 else set[str]()
    new = [line for line in page_lines(solution.final) if line not in before]
    wanted = telling(solution.task.instruction)
    place = [line for line in new[:1] if "location" in gold_task(solution.task.gold_id or "").goal.state]
    best = _closest(wanted - words(" ".join(place)) if place else wanted, [line for line in new if line not in place])
    return (*place, best) if best else tuple(place or new[:1])


def _closest_to(wanted: Sequence[str], lines: Sequence[str]) -> tuple[str, ...]:
    """For each line that is wanted the line that is most like it; a title for a title."""
    return tuple(_most_like(part, lines) or NOTHING for part in wanted)


def _most_like(wanted: str, lines: Sequence[str]) -> str:
    if wanted.startswith("page ") and lines:
        return lines[0]
    asked = words(wanted)
    return max(lines, key=lambda line: len(asked & words(line)) / max(1, len(asked | words(line))), default="")


def _closest(wanted: Collection[str], lines: Iterable[str]) -> str:
    """The line that shares most words with what is wanted, the first of equals; empty if none shares any."""
    asked = set(wanted)
    best = max(lines, key=lambda line: len(asked & words(line)), default="")
    return best if asked & words(best) else ""
