"""What a judge is taught to say before its verdict: what a task wants to see, what its last page shows, side by side.

A small model copies well and compares badly. So it first copies together what is to be compared: of a question the line
that tells and the answer it gives, next to the answer given; of an errand the line that its success would show, next to
the closest line that is shown. The verdict is then whether two neighbouring pieces of text are the same.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from evaluator.truth import gold_task
from policy.prompt import describe
from policy.trajectory import ActionKind, Observation, Trajectory

MAX_LINE_CHARS = 70
NOTHING = "nothing"


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
    given = NOTHING if attempt.answer is None else attempt.answer
    done = f"Given {given}, after {_last_deed(attempt)}"
    answers = gold_task(solution.task.gold_id or "").goal.answers
    if answers:
        seen, right = _told(attempt, answers, solution.answer or "")
        return Reason(f"Seen {seen}. Right {right or 'not shown'}. {done}.", fits=right != "")
    wanted = _news(solution)
    seen = _closest_to(wanted, page_lines(attempt.final))
    return Reason(
        f"Wanted {' / '.join(wanted) or NOTHING}. Seen {' / '.join(seen) or NOTHING}. {done}.", wanted == seen
    )


def page_lines(page: Observation | None) -> list[str]:
    """The lines of a page without tags and marks, its title first."""
    if page is None:
        return []
    title = page.title.rpartition(" - ")[0] or page.title
    return [f"page {title}", *(clean(line) for line in page.listing.splitlines())]


def clean(line: str) -> str:
    """A line of a listing without its element's tag and mark, cut to `MAX_LINE_CHARS`."""
    return " ".join(re.sub(r"^<[^>]+> |\[\d+\]", "", line).split())[:MAX_LINE_CHARS].rstrip(" .")


def words(text: str) -> set[str]:
    """Words and numbers of a text, case ignored."""
    return {word.casefold() for word in re.findall(r"\w+(?:[.-]\w+)*", text)}


def telling(instruction: str) -> set[str]:
    """The words of an instruction that say what it is about: names, numbers and longer words."""
    return {
        word.casefold() for word in re.findall(r"\w+(?:[.-]\w+)*", instruction) if len(word) > 3 or not word.islower()
    }


def _told(attempt: Trajectory, answers: Sequence[str], right: str) -> tuple[str, str]:
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
    return " / ".join(filter(None, seen)) or NOTHING, right if is_told else ""


def _news(solution: Trajectory) -> list[str]:
    """What a success shows that wasn't there before its last deed: the new line that says most about the task.

    Where the task is to be somewhere, that place's title comes first.
    """
    before = set(page_lines(solution.steps[-2].observation)) if len(solution.steps) > 1 else set[str]()
    new = [line for line in page_lines(solution.final) if line not in before]
    wanted = telling(solution.task.instruction)
    place = [line for line in new[:1] if "location" in gold_task(solution.task.gold_id or "").goal.state]
    best = _closest(wanted - words(" ".join(place)) if place else wanted, [line for line in new if line not in place])
    return [*place, best] if best else place or new[:1]


def _closest_to(wanted: Sequence[str], lines: Sequence[str]) -> list[str]:
    """For each line that is wanted the line that is most like it; a title for a title."""
    return [line if (line := _most_like(part, lines)) else NOTHING for part in wanted]


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


def _last_deed(attempt: Trajectory) -> str:
    deeds = [step for step in attempt.steps if step.action and step.action.kind is not ActionKind.ANSWER]
    if not deeds or deeds[-1].action is None:
        return NOTHING
    return describe(deeds[-1].action, deeds[-1].observation)[:MAX_LINE_CHARS]
