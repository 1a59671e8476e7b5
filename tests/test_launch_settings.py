"""The reference of the settings: whole, with a meaning for every key, and as committed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from launch.cli import app
from launch.config import Config
from launch.settings import reference, sections

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"


def keys(table: Any, path: str = "") -> Iterator[str]:
    """Dotted names of all keys, tables among them, whatever else is in a key's type."""
    for part in get_args(table):
        yield from keys(part, path)
    if isinstance(table, type) and issubclass(table, BaseModel):
        for name, field in table.model_fields.items():
            yield f"{path}{name}"
            yield from keys(field.annotation, f"{path}{name}.")


def told(text: str) -> set[str]:
    """Dotted names of the tables and keys in the reference."""
    found, path = set(), ""
    for line in text.splitlines():
        if line.startswith("## "):
            path = line.split("`")[1].strip("[]")
            found.add(path)
        elif line.startswith("- `"):
            found.add(f"{path}.{line.split('`')[1]}")
    return found


def test_the_document_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 0
    assert DOCUMENT.read_text() == result.stdout, "python -m launch settings > docs/settings.md"


def test_every_key_is_told() -> None:
    assert told(reference()) == set(keys(Config))


def test_every_key_has_a_meaning() -> None:
    fields = {f"{s.path}.{name}": field for s in sections(Config) for name, field in s.table.model_fields.items()}
    assert not [key for key, field in fields.items() if not field.description]
    assert all(section.meaning for section in sections(Config))


def test_a_key_is_told_with_its_type_limits_default_and_meaning() -> None:
    assert "\n- `lr` (number, above `0`, default `5e-05`): Peak learning rate.\n" in reference("learner")
    assert '\n- `role` (`"train"` or `"unseen"`, default `"train"`): ``train``: ' in reference("websites")
    assert "\n- `image_px` (integer or none, at least `16`, default `none`): " in reference("panel.endpoint")
    assert reference("websites").startswith("## `[[websites]]`\n\nThe websites, at least one with role ``train``. Req")


def test_a_prefix_limits_it_to_a_table_and_those_within() -> None:
    headings = [line for line in reference("rollout.browser").splitlines() if line.startswith("#")]
    assert headings == [f"## `[rollout.browser{within}]`" for within in ("", ".guard", ".politeness")]
    assert reference("learner.algorithm").count("\n- `name` (") == 5


@pytest.mark.parametrize("prefix", ["rollout.brow", "learner.lr", "nothing"])
def test_an_unknown_prefix_is_refused_in_a_line(prefix: str) -> None:
    result = CliRunner().invoke(app, ["settings", prefix])
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: settings {prefix}: no such table; expected one of run, websites, model, ")
