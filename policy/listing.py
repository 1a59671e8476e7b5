"""The page in words: what policy/observe.js read in one pass, turned into elements and the agent's listing."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from policy.trajectory import Element

MORE = "... (page continues below)"
_LONG_TEXT_CHARS = 120  # what a text line is cut to where the whole listing doesn't fit


class RawElement(BaseModel):
    """An interactive element as the page's script describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    name: str
    value: str
    options: tuple[str, ...]
    """Choices of a select; empty for everything else."""
    box: tuple[int, int, int, int]


class RawPage(BaseModel):
    """One pass over the page; rows are (mark, text) in document order, mark 0 for text alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    title: str
    status: int
    """HTTP status of the document; 0 where the browser doesn't tell."""
    elements: tuple[RawElement, ...]
    rows: tuple[tuple[int, str], ...]
    below: bool
    """Whether content lies below the viewport."""

    def marked(self) -> tuple[Element, ...]:
        """The elements as the agent and the record get them, marks counted from 1."""
        return tuple(
            Element(mark=mark, tag=raw.tag, name=raw.name, value=raw.value, box=raw.box)
            for mark, raw in enumerate(self.elements, start=1)
        )

    def text(self) -> str:
        """The visible text with the names of the elements in their places."""
        lines = (_join(self.elements[mark - 1].name if mark else "", text) for mark, text in self.rows)
        return "\n".join(filter(None, lines))

    def listing(self, *, page_text: bool, max_chars: int, numbered: bool = True) -> str:
        """One line per element and, with `page_text`, the text around them; cut at about `max_chars`.

        `numbered`: whether elements bear their marks.
        """
        lines = self._lines(page_text, max_chars, numbered)
        if _length(lines) > max_chars:
            lines = self._lines(page_text, _LONG_TEXT_CHARS, numbered)
        return _cut(lines, max_chars, more=self.below)

    def _lines(self, page_text: bool, max_text: int, numbered: bool) -> list[str]:
        lines = []
        for mark, text in self.rows:
            said = _shorten(text, max_text) if page_text else ""
            line = _join(_element_line(mark if numbered else 0, self.elements[mark - 1]) if mark else "", said)
            if line:
                lines.append(line)
        return lines


def _element_line(mark: int, element: RawElement) -> str:
    # The mark follows the name: a small model looks a name up and reads on, far sooner than it learns to look back.
    line = f"<{element.tag}> {element.name}".rstrip() + (f" [{mark}]" if mark else "")
    if element.value:
        line += f" = {element.value}"
    if element.options:
        line += f" ({', '.join(element.options)})"
    return line


def _join(head: str, tail: str) -> str:
    return "  ".join(filter(None, (head, tail.strip())))


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _length(lines: Sequence[str]) -> int:
    return sum(len(line) + 1 for line in lines)


def _cut(lines: Sequence[str], max_chars: int, *, more: bool) -> str:
    kept: list[str] = []
    used = 0
    for line in lines:
        used += len(line) + 1
        if used > max_chars and kept:
            more = True
            break
        kept.append(line)
    return "\n".join([*kept, MORE] if more else kept)
