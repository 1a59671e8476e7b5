"""Readers of the task files of web-agent benchmarks: WebVoyager's, WebArena's and Mind2Web's, each into `Task`.

    WebVoyager  JSON lines  {"web_name", "id", "ques", "web"}                                 (arXiv 2401.13919)
    WebArena    JSON list   [{"task_id", "intent", "start_url", "sites", "eval": {...}}]       (arXiv 2307.13854)
    Mind2Web    JSON list   [{"website", "confirmed_task", "annotation_id" or "task_id"}]      (arXiv 2306.06070)

Addresses that a file leaves open (WebArena's ``__SHOPPING__``, Mind2Web's bare names) are given by the caller.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proposer.task import Checks, PageCheck, Task, Website

Places = Mapping[str, str]
"""Name of a website in a file -> its address."""

_OR = re.compile(r"\s*\|OR\|\s*")
_PLACEHOLDER = re.compile(r"__([A-Z_0-9]+?)__")


class TaskFileError(ValueError):
    """A task file can't be read; one line with the file, the place and what was expected."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # files carry more than is needed


class _WebVoyagerEntry(_Entry):
    web_name: str = Field(min_length=1)
    id: str
    ques: str = Field(min_length=1)
    web: str


class _Answers(_Entry):
    exact_match: str | None = None
    must_include: tuple[str, ...] = ()
    fuzzy_match: tuple[str, ...] | Literal["N/A"] = ()


class _Contents(_Entry):
    exact_match: str | None = None
    must_include: tuple[str, ...] = ()


class _Program(_Entry):
    url: str
    locator: str = ""
    required_contents: _Contents


class _Evaluation(_Entry):
    eval_types: tuple[Literal["string_match", "url_match", "program_html"], ...] = Field(min_length=1)
    reference_answers: _Answers | None = None
    reference_url: str | None = None
    url_note: Literal["GOLD in PRED"] | None = None
    program_html: tuple[_Program, ...] = ()
    string_note: str | None = None


class _WebArenaEntry(_Entry):
    task_id: int
    intent: str = Field(min_length=1)
    start_url: str
    sites: tuple[str, ...] = Field(min_length=1)
    eval: _Evaluation


class _Mind2WebEntry(_Entry):
    website: str = Field(min_length=1)
    confirmed_task: str = Field(min_length=1)
    annotation_id: str | None = None
    task_id: str | None = None


def read_webvoyager(path: Path, places: Places) -> list[Task]:
    """The tasks of a WebVoyager file; a judge says whether they are done. Raises TaskFileError."""
    rows = enumerate(_text(path).splitlines(), 1)
    entries = [(f"line {number}", _json(path, line, f"line {number}")) for number, line in rows if line.strip()]

    def make(entry: _WebVoyagerEntry) -> Task:
        return _task(f"webvoyager/{entry.id}", entry.web_name, entry.ques, places.get(entry.web_name, entry.web))

    return _tasks(path, entries, _WebVoyagerEntry, make)


def read_webarena(path: Path, places: Places) -> list[Task]:
    """The tasks of a WebArena file with their checks.

    `places` has the addresses of its placeholders: ``{"SHOPPING": "http://127.0.0.1:7770"}``. Raises TaskFileError.
    """

    def make(entry: _WebArenaEntry) -> Task:
        start, _, _ = entry.start_url.partition(" |AND| ")  # of several tabs the first
        task = _task(f"webarena/{entry.task_id}", "-".join(entry.sites), entry.intent, _filled(start, places))
        hosts = {urlsplit(places[site.upper()]).netloc for site in entry.sites if site.upper() in places}
        website = task.website.model_copy(update={"allowed_hosts": tuple(sorted(hosts))})
        return task.model_copy(update={"website": website, "checks": _checks(entry.eval, places)})

    return _tasks(path, _listed(path), _WebArenaEntry, make)


def read_mind2web(path: Path, places: Places) -> list[Task]:
    """The tasks of a Mind2Web or Online-Mind2Web file; a judge says whether they are done. Raises TaskFileError."""

    def make(entry: _Mind2WebEntry) -> Task:
        name = urlsplit(entry.website).hostname or entry.website
        url = places.get(entry.website, entry.website)
        return _task(f"mind2web/{entry.annotation_id or entry.task_id}", name, entry.confirmed_task, url)

    return _tasks(path, _listed(path), _Mind2WebEntry, make)


READERS: dict[str, Callable[[Path, Places], list[Task]]] = {
    "webvoyager": read_webvoyager,
    "webarena": read_webarena,
    "mind2web": read_mind2web,
}
"""By the name of the suite."""


def _checks(evaluation: _Evaluation, places: Places) -> Checks:
    kinds, found = evaluation.eval_types, {}
    if "string_match" in kinds:
        answers = evaluation.reference_answers
        if answers is None or not answers.model_dump(exclude_defaults=True):
            raise ValueError("eval.reference_answers: expected exact_match, must_include or fuzzy_match")
        fuzzy = answers.fuzzy_match
        if fuzzy == "N/A":  # the task can't be done, and the answer is to say so, and why
            fuzzy = (f"This can't be done. {evaluation.string_note or ''}".strip(),)
        found |= {"exact": answers.exact_match, "must_include": answers.must_include, "fuzzy": fuzzy}
    if "url_match" in kinds:
        if not evaluation.reference_url:
            raise ValueError("eval.reference_url: expected an address")
        found["urls"] = tuple(_filled(url, places) for url in _OR.split(evaluation.reference_url))
    if "program_html" in kinds:
        if not evaluation.program_html:
            raise ValueError("eval.program_html: expected at least one page")
        found["pages"] = tuple(_page(program, places) for program in evaluation.program_html)
    return Checks(**found)


def _page(program: _Program, places: Places) -> PageCheck:
    if program.url.startswith("func:") or program.locator.startswith("func:"):
        raise ValueError("eval.program_html: func: asks a site's own interface, which isn't supported")
    contents = program.required_contents
    if contents.exact_match is None and not contents.must_include:
        raise ValueError("eval.program_html: required_contents: expected exact_match or must_include")
    url = "" if program.url == "last" else _filled(program.url, places)
    include = tuple(tuple(_OR.split(text)) for text in contents.must_include)
    return PageCheck(url=url, locator=program.locator, exact=contents.exact_match, must_include=include)


def _filled(url: str, places: Places) -> str:
    def place(match: re.Match[str]) -> str:
        if match[1] not in places:
            raise ValueError(f"no address is known for {match[0]}; give one: --place {match[1]}=http://...")
        return places[match[1]].rstrip("/")

    return _PLACEHOLDER.sub(place, url)


def _task(suite_id: str, name: str, instruction: str, url: str) -> Task:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is no address of the web; give one: --place {url}=https://...")
    return Task(website=Website(name=name, url=url), instruction=instruction, source="suite", suite_id=suite_id)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TaskFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TaskFileError(f"{path}: expected UTF-8 text") from None


def _json(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TaskFileError(f"{path}: {where}: not JSON: {error}") from None


def _listed(path: Path) -> list[tuple[str, Any]]:
    entries = _json(path, _text(path), "file")
    if not isinstance(entries, list):
        raise TaskFileError(f"{path}: expected a list of tasks")
    return [(f"task {number}", entry) for number, entry in enumerate(entries)]


def _tasks(path: Path, entries: list[tuple[str, Any]], kind: type[Any], make: Callable[[Any], Task]) -> list[Task]:
    tasks = []
    for where, entry in entries:
        try:
            tasks.append(make(kind.model_validate(entry)))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "entry"
            raise TaskFileError(f"{path}: {where}: {key}: {first['msg']}") from None
        except ValueError as error:
            raise TaskFileError(f"{path}: {where}: {error}") from None
    ids = [task.suite_id for task in tasks]
    if len(set(ids)) < len(ids):
        raise TaskFileError(f"{path}: ids must differ, got {max(ids, key=ids.count)} more than once")
    return tasks
