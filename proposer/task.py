"""Website and Task: what the agent practises on, and what it is asked to do there."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Website(BaseModel):
    """A website that the agent may practise on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str
    """Where an episode starts. ``practice:<site>`` is a built-in practice site: every episode gets a private world."""
    description: str = ""
    """One sentence for the proposer: what the website is for."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts reachable besides the start address's own; ``*.example.com`` covers subdomains."""

    @property
    def practice_site(self) -> str | None:
        """Name of the built-in practice site behind this website; None for any other website."""
        prefix, _, site = self.url.partition(":")
        return site if prefix == "practice" else None


class Task(BaseModel):
    """One instruction on one website (the paper's c, drawn from the proposer's C(. | z))."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    website: Website
    instruction: str = Field(min_length=1)
    world: str | None = None
    """Practice sites: the generated world (``train-17``); None on other websites."""
    source: Literal["proposer", "gold"] = "proposer"
    gold_id: str | None = None
    """Gold tasks of practice sites: their id, from which the checker is found; None for proposed tasks."""

    @property
    def id(self) -> str:
        """Content hash: the same task on the same world has the same id in every run."""
        text = "\x1f".join(
            (self.website.name, self.website.url, self.world or "", self.gold_id or "", self.instruction)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]
