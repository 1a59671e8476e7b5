"""Whether a suite's checks are met: WebArena's string, URL and HTML matches (arXiv 2307.13854, section 3.2).

Pure functions of a trajectory: what pages held at its end is in it already (`Trajectory.found`).
"""

import html
import re
from collections.abc import Sequence
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit

from policy.trajectory import Trajectory
from proposer.task import Checks, PageCheck


class Result(StrEnum):
    """What checks say of an attempt."""

    PASSED = "passed"
    FAILED = "failed"
    OPEN = "open"
    """What can be computed is met; whether the answer means what it should takes a judge (`for_judge`)."""


def check(trajectory: Trajectory) -> Result | None:
    """Whether a task's checks are met; None where it has none, or where the outcome isn't the agent's.

    Addresses and pages count however the agent's episode ended; an answer that was never given is wrong.
    """
    checks = trajectory.task.checks
    if checks is None or not trajectory.outcome.is_agents or trajectory.final is None:
        return None
    met = [
        _answer_fits(checks, trajectory.answer),
        not checks.urls or url_fits(trajectory.final.url, checks.urls),
        all(_page_fits(page, text) for page, text in zip(checks.pages, trajectory.found, strict=True)),
    ]
    if not all(met):
        return Result.FAILED
    return Result.OPEN if checks.fuzzy else Result.PASSED


def for_judge(trajectory: Trajectory) -> Trajectory:
    """An attempt as a judge is to see it: its task says what the answer has to mean."""
    checks = trajectory.task.checks
    wanted = "; ".join(checks.fuzzy) if checks else ""
    if not wanted:
        return trajectory
    task = trajectory.task
    instruction = f"{task.instruction} (A right answer means: {wanted})"
    return trajectory.model_copy(update={"task": task.model_copy(update={"instruction": instruction})})


def is_exact(text: str, wanted: str) -> bool:
    """``exact_match``: the same but for case, spaces around, and quotation marks around."""
    return _plain(text) == _plain(wanted)


def includes(text: str, wanted: str) -> bool:
    """``must_include``: it stands in the text; a single character only as a word, so that 1 isn't found in 10."""
    wanted = _plain(wanted)
    if len(wanted) == 1:
        return wanted in re.findall(r"\w+|[^\w\s]", _plain(text))
    return wanted in _plain(text)


def url_fits(url: str, wanted: Sequence[str]) -> bool:
    """``url_match`` by "GOLD in PRED": host and path of a wanted address stand in the URL's, and its parameters.

    Of a parameter that several wanted addresses give, one of the values is enough.
    """
    path, query = _url_parts(url)
    parts = [_url_parts(one) for one in wanted]
    allowed: dict[str, set[str]] = {}
    for _, values_of in parts:
        for key, values in values_of.items():
            allowed.setdefault(key, set()).update(values)
    return any(one in path for one, _ in parts) and all(
        values & set(query.get(key, ())) for key, values in allowed.items()
    )


def _url_parts(url: str) -> tuple[str, dict[str, list[str]]]:
    """Host with path, and parameters."""
    parts = urlsplit(url.rstrip("/"))
    return parts.netloc + parts.path.rstrip("/"), parse_qs(parts.query)


def _answer_fits(checks: Checks, answer: str | None) -> bool:
    if checks.exact is None and not checks.must_include and not checks.fuzzy:
        return True
    if answer is None:
        return False
    is_right = checks.exact is None or is_exact(answer, checks.exact)
    return is_right and all(includes(answer, wanted) for wanted in checks.must_include)


def _page_fits(page: PageCheck, found: str) -> bool:
    text = html.unescape(found)
    is_right = page.exact is None or is_exact(text, page.exact)
    return is_right and all(any(_holds(text, one) for one in alternatives) for alternatives in page.must_include)


def _holds(text: str, wanted: str) -> bool:
    return _plain(wanted) in _plain(text)


def _plain(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return text.lower()
