"""The reference of all that a config may say, as Markdown, from the classes that read it: docs/settings.md."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from launch.config import NONE, Config, ConfigError

WIDTH = 120
INTRO = """# Settings

Every key of a config, as `python -m launch settings` prints it; `python -m launch settings rollout.browser` prints one
table and those within. A key is set in the file or with `--set rollout.browser.width_px=800`; an item of a list is
named by its number, from 0: `--set websites.0.role=unseen`. Where `none` is allowed it is the word
`"none"`, since TOML has nothing for it: `--set learner.lora_rank=none` trains all weights."""
WORDS = {bool: "true or false", int: "integer", float: "number", str: "string", Path: "path", NoneType: NONE}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "pattern": "matching"}


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the config, or one of the kinds that it may be of."""

    path: str
    heading: str
    meaning: str
    table: type[BaseModel]

    def __str__(self) -> str:
        keys = [_entry(name, field) for name, field in self.table.model_fields.items() if not tables(field.annotation)]
        return "\n\n".join(filter(None, (f"## {self.heading}", _filled(self.meaning), "\n".join(keys))))


def reference(prefix: str = "") -> str:
    """The section of a table and those within; of all where no prefix is given. Raises ConfigError."""
    every = list(sections(Config))
    found = [section for section in every if f"{section.path}.".startswith(f"{prefix}." if prefix else "")]
    if not found:
        names = ", ".join(dict.fromkeys(section.path for section in every))
        raise ConfigError(f"settings {prefix}: no such table; expected one of {names}")
    return "\n\n".join(([] if prefix else [INTRO]) + list(map(str, found)))


def sections(table: type[BaseModel], above: str = "") -> Iterator[Section]:
    """A table's tables, each followed by those within."""
    for name, field in table.model_fields.items():
        path, kinds = f"{above}{name}", tables(field.annotation)
        heading = f"`[[{path}]]`" if get_origin(field.annotation) is tuple else f"`[{path}]`"
        for kind in kinds:
            is_only = len(kinds) == 1
            meaning = field.description if is_only else kind.__doc__
            which = "" if is_only else f", `name = {_json(kind.model_fields['name'].default)}`"
            required = " Required." if field.is_required() else ""
            yield Section(path, f"{heading}{which}", f"{meaning}{required}", kind)
            yield from sections(kind, f"{path}.")


def tables(annotation: Any) -> list[type[BaseModel]]:
    """The tables in a key's type: none of a plain key, several where it may be of several kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in tables(part)]


def _entry(name: str, field: FieldInfo) -> str:
    facts = ", ".join((_kind(field.annotation), *_limits(field), _default(field)))
    return _filled(f"- `{name}` ({facts}): {field.description}", "  ")


def _kind(annotation: Any) -> str:
    if annotation in WORDS:
        return WORDS[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is tuple:
        return f"list of {_kind(parts[0])}s"
    if origin is UnionType:
        return " or ".join(map(_kind, parts))
    return " or ".join(f"`{_json(choice)}`" for choice in parts or annotation)  # of a Literal or an Enum


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        for name, word in LIMITS.items():
            if (value := getattr(limit, name, None)) is not None:
                yield f"{word} `{value}`"


def _default(field: FieldInfo) -> str:
    tells_the_kind = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    return "required" if field.is_required() or tells_the_kind else f"default `{_json(field.default)}`"


def _json(value: Any) -> str:
    return NONE if value is None else json.dumps(to_jsonable_python(value))


def _filled(text: str, indent: str = "") -> str:
    words = " ".join(text.split())
    return textwrap.fill(words, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
