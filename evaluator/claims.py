"""A judge's words, checked: what it says is wanted, what it says is shown, and whether the page bears that out.

A small model looks things up and copies them well, and compares them badly. So where the config asks for it
(`JudgeSettings.checked`) the judge only quotes, and the verdict is computed: are wanted and seen the same, is the
answer given the right one, does every quote stand on the page? A reason has one of two forms:

    Wanted <lines that a success newly shows>. Seen <closest lines>. Given <answer>, after <last deed>.
    Seen <lines that tell>. Right <answer, or "not shown">. Given <answer>, after <last deed>.
"""

import re
from dataclasses import dataclass
from typing import Self

from evaluator.truth import is_asked
from evaluator.verdict import Judgement
from policy.prompt import describe
from policy.trajectory import ActionKind, Observation, Step, Trajectory
from proposer.task import missing_names

MAX_LINE_CHARS = 70
NOTHING, NOT_SHOWN = "nothing", "not shown"
_BETWEEN = " / "
_ERRAND = re.compile(r"Wanted (?P<wanted>.*?)\. Seen (?P<seen>.*?)\. Given (?P<given>.*), after (?P<after>.*?)\.?")
_QUESTION = re.compile(r"Seen (?P<seen>.*?)\. Right (?P<right>.*?)\. Given (?P<given>.*), after (?P<after>.*?)\.?")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a judge says before its verdict."""

    seen: tuple[str, ...]
    """Lines quoted from the last page, as `page_lines` gives them."""
    wanted: tuple[str, ...] = ()
    """Of an errand: the lines that its success newly shows."""
    right: str | None = None
    """Of a question: the answer that the quoted lines give, empty if they don't; None for errands."""
    given: str = NOTHING
    """The agent's answer."""
    after: str = NOTHING
    """The agent's last deed, in words."""

    def __str__(self) -> str:
        """The reason as the judge writes it; `parse` reads it back."""
        seen, given = _joined(self.seen), f"Given {self.given}, after {self.after}."
        if self.right is None:
            return f"Wanted {_joined(self.wanted)}. Seen {seen}. {given}"
        return f"Seen {seen}. Right {self.right or NOT_SHOWN}. {given}"

    @classmethod
    def parse(cls, reason: str) -> Self | None:
        """The claims in a reason; None if it has neither form."""
        if match := _ERRAND.fullmatch(reason.strip()):
            return cls(
                _split(match["seen"]), wanted=_split(match["wanted"]), given=match["given"], after=match["after"]
            )
        if match := _QUESTION.fullmatch(reason.strip()):
            right = "" if match["right"] == NOT_SHOWN else match["right"]
            return cls(_split(match["seen"]), right=right, given=match["given"], after=match["after"])
        return None


def _joined(lines: tuple[str, ...]) -> str:
    return _BETWEEN.join(lines) or NOTHING


def _split(text: str) -> tuple[str, ...]:
    return () if text == NOTHING else tuple(text.split(_BETWEEN))


def check(claims: Claims, trajectory: Trajectory) -> tuple[Judgement, str]:
    """The verdict that follows from a judge's claims on an attempt that ended with an answer, and why.

    Claims that speak against the agent make a failure. Those that speak for it make a success if the page bears them
    out; otherwise the verdict is undecided: a task about something that no page showed, a false quote, an answer that
    only repeats the question, a question judged like an errand, an errand on which nothing was done, or whose last deed
    came after what was asked for (a side effect, as likely as not).
    """
    assert trajectory.answer is not None, "without one the judge isn't asked"
    if claims.right is None:
        if not claims.wanted or tuple(map(_plain, claims.wanted)) != tuple(map(_plain, claims.seen)):
            return Judgement.FAILURE, "the page doesn't show what is wanted"
    elif not claims.right:
        return Judgement.FAILURE, "the page doesn't tell"
    elif _plain(claims.right) != _plain(trajectory.answer):
        return Judgement.FAILURE, "that is not the right answer"
    if doubt := _doubt(claims, trajectory):
        return Judgement.UNDECIDED, doubt
    return Judgement.SUCCESS, "so it is on the page"


def _doubt(claims: Claims, trajectory: Trajectory) -> str:
    """Why claims that speak for a success aren't believed; empty if they are."""
    quotes = {_plain(line) for line in claims.seen}
    if missing := quotes - {_plain(line) for line in _said_by(trajectory.final)}:
        return f"the page doesn't show {sorted(missing)[0]!r}"
    pages = (*(step.observation for step in trajectory.steps), trajectory.final)
    shown = "\n".join(f"{page.title}\n{page.listing}" for page in pages if page)
    if unseen := missing_names(trajectory.task.instruction, shown):
        return f"no page showed {unseen[0]!r}"
    if claims.right is not None:
        if not claims.seen or not words(claims.right) <= words(_joined(claims.seen)):
            return "what was seen doesn't hold the right answer"
        if len(claims.seen) < 2 and words(claims.right) <= words(trajectory.task.instruction):
            return "the answer only repeats the question"  # of two things to compare both have to be seen
        return ""
    if is_asked(trajectory.task.instruction):
        return "a question was judged like an errand, without its answer"
    deed = last_deed(trajectory)
    if deed is None:
        return "nothing was done"  # what is wanted was there from the start
    if quotes <= {_plain(line) for line in _said_by(deed.observation)}:
        return "all of it was there before the last deed, which may have done something else"
    return ""


def _said_by(page: Observation | None) -> list[str]:
    """A page's lines, and the same said of the thing in its title.

    On the page of Copper Kettle, ``Price $12.50`` says ``Copper Kettle $12.50``: so lists show it and judges quote it.
    """
    lines = page_lines(page)
    title = lines[0].removeprefix("page ") if lines else ""
    return [*lines, *(f"{title} {fact}" for line in lines[1:] for fact in (line, line.partition(" ")[2]))]


def last_deed(trajectory: Trajectory) -> Step | None:
    """The last step that did something to a page; None if none did."""
    idle = (ActionKind.ANSWER, ActionKind.SCROLL, ActionKind.WAIT)
    return next((step for step in reversed(trajectory.steps) if step.action and step.action.kind not in idle), None)


def deed_in_words(trajectory: Trajectory) -> str:
    """The last deed as the judge writes it."""
    deed = last_deed(trajectory)
    return describe(deed.action, deed.observation)[:MAX_LINE_CHARS] if deed and deed.action else NOTHING


def page_lines(page: Observation | None) -> list[str]:
    """The lines of a page without tags and marks, its title first."""
    if page is None:
        return []
    title = page.title.rpartition(" - ")[0] or page.title
    return [f"page {title}", *(clean(line) for line in page.listing.splitlines())]


def clean(line: str) -> str:
    """A line of a listing without its element's tag and mark, cut to `MAX_LINE_CHARS`."""
    return _bare(line)[:MAX_LINE_CHARS].rstrip(" .")


def _bare(line: str) -> str:
    return " ".join(re.sub(r"^<[^>]+> |\[\d+\]", "", line).split())


def is_shown(quote: str, page: Observation) -> bool:
    """Whether a quote stands on a page, in its title or what is listed of it."""
    lines = [page.title, *map(_bare, page.listing.splitlines())]
    return holds(" ".join(lines), _bare(quote))


def holds(text: str, quote: str) -> bool:
    """Whether a quote stands in a text as whole words, case and spaces ignored; an empty one stands nowhere."""
    plain = " ".join(quote.casefold().split())
    return bool(plain) and re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", " ".join(text.casefold().split())) is not None


def words(text: str) -> set[str]:
    """Words and numbers of a text, case ignored."""
    return {word.casefold() for word in re.findall(r"\w+(?:[.-]\w+)*", text)}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!'\"$")
