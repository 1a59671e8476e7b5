"""The record of an attempt: observations, actions, steps, and how the episode ended. Written to disk as JSON."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from proposer.task import Task

TRAJECTORY_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Element(_Record):
    """One marked interactive element of the page."""

    mark: int
    """The number drawn on the screenshot, from 1, in document order."""
    tag: str
    """Lower-case tag; inputs carry their type: ``input:checkbox``."""
    name: str
    """Accessible name: aria-label, label, visible text, placeholder, title or alt, whichever comes first."""
    value: str = ""
    """Current value of a field or chosen option of a select; ``checked`` for a ticked box."""
    box: tuple[int, int, int, int]
    """Left, top, width, height in CSS pixels of the viewport."""


class Observation(_Record):
    """What the agent sees before a step."""

    url: str
    title: str
    elements: tuple[Element, ...]
    listing: str
    """The page in document order: one line per marked element (``<button> Add to cart [4]``), with lines of visible
    text between them where the config asks for page text."""
    screenshot: str
    """Name of the picture with marks: sha256 of its bytes, in the blob store."""
    notice: str = ""
    """What the agent is told about its last action (malformed, no such mark, dialog, blocked address); often empty."""


class ActionKind(StrEnum):
    """The agent's actions: the paper's (PAE, section 4, after WebVoyager) with Select, and more for other spaces."""

    CLICK = "click"
    TYPE = "type"
    """Replaces what the field holds."""
    SELECT = "select"
    SCROLL = "scroll"
    WAIT = "wait"
    GO_BACK = "go_back"
    HOME = "home"
    ANSWER = "answer"
    APPEND = "append"
    """Types behind what the field holds."""
    HOVER = "hover"
    DRAG = "drag"
    UPLOAD = "upload"
    """Clicks what asks for a file, and gives it one of the episode's."""
    PRESS = "press"
    """A key, or keys together, where the focus is."""


class ActionSpace(StrEnum):
    """What the agent may do, and how it says on what."""

    BASIC = "basic"
    """The paper's actions with Select, on marks: what the starter was taught."""
    FULL = "full"
    """All actions, on marks; panes that scroll and hold no element are marked too."""
    POINTS = "points"
    """All actions, at points of the picture, which bears no marks: for models that were trained to point."""

    @property
    def kinds(self) -> tuple[ActionKind, ...]:
        """The actions in it."""
        everything = tuple(ActionKind)
        return everything[: everything.index(ActionKind.ANSWER) + 1] if self is ActionSpace.BASIC else everything


Point = tuple[int, int]
"""From the left and from the top, in CSS pixels of the viewport, which are the picture's."""


class Action(_Record):
    """One parsed action."""

    kind: ActionKind
    mark: int | None = None
    """The element acted on; None for actions on the page as a whole (Scroll without a mark scrolls the window)."""
    text: str = ""
    """Typed text, option to select, direction to scroll in, key to press, name of a file, or the final answer."""
    point: Point | None = None
    """The place acted on, instead of a mark."""
    to_mark: int | None = None
    """The element that something is dragged to."""
    to_point: Point | None = None
    """The same as a place."""


class Effect(StrEnum):
    """How an action went."""

    DONE = "done"
    GONE = "gone"
    """Its element is not there, or never was, or the whole page has closed."""
    HIDDEN = "hidden"
    """Its element is there and can't be seen."""
    COVERED = "covered"
    """Something else lies over its element."""
    MOVED = "moved"
    """Its element went away under the mouse; nothing was pressed."""
    DISABLED = "disabled"
    """Its element takes nothing now."""
    UNFIT = "unfit"
    """Its element doesn't take this action, or this text."""
    NOTHING = "nothing"
    """There was nothing to do: no further to scroll, no page to go back to."""
    REFUSED = "refused"
    """It was not done: it can't be undone, or gives away personal data (policy/guard.py)."""


class ActionClass(StrEnum):
    """What may come of an action or a request, mildest first."""

    READ = "read"
    """Nothing changes for the website."""
    REVERSIBLE = "reversible"
    """Something changes that can be taken back: what is in a cart, a setting."""
    IRREVERSIBLE = "irreversible"
    """Something is bought, sent, published or deleted, or it can't be told that nothing is."""

    @property
    def severity(self) -> int:
        """From 0, to compare."""
        return list(ActionClass).index(self)


class SideEffect(_Record):
    """One thing that an episode did, or tried to do, to the website; names and places, never what was entered."""

    after: int
    """Number of the action that it was or followed, from 1; 0: it came before the first."""
    what: Literal["action", "request"]
    """An action that sends a form or doesn't merely read; or a request of the page's that isn't GET, HEAD or
    OPTIONS, whatever in the page made it."""
    of: ActionClass
    method: str
    """Of the form or the request, in capitals; empty where an action goes by a script."""
    url: str
    """Where to, without query and fragment, and without what looks like a secret; empty likewise."""
    fields: tuple[str, ...] = ()
    """Names of the fields that the form sends."""
    allowed: bool
    """Whether it was let through."""


class Step(_Record):
    """Observation, response and action; the tokens are those that the model sampled."""

    observation: Observation
    response: str
    thought: str
    action: Action | None
    """None: the response was malformed; the next observation's notice says how."""
    malformed: str = ""
    """Why the response has no action; empty if it has one."""
    effect: Effect | None = None
    """How the action went, of which the next observation's notice tells; None if there was none."""
    action_class: ActionClass | None = None
    """What could come of the action; None if there was none."""
    pictured: bool = True
    """Whether the screenshot was part of the prompt."""
    weights: int | None = None
    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    temperature: float = 1.0
    """The sampling temperature, of which the log-probs are; 0: greedy."""
    model_s: float = 0.0
    """Seconds spent waiting for the model in this step."""
    browser_s: float = 0.0
    """Seconds spent acting, settling and observing in this step."""


class Outcome(StrEnum):
    """How an episode ended; each launched episode has exactly one."""

    FINISHED = "finished"
    """The agent gave an answer."""
    STEP_LIMIT = "step_limit"
    STUCK = "stuck"
    """The agent said the same again and again on a page that stayed the same."""
    OVER = "over"
    """The suite that the task is from ended it, done or not."""
    TIME_LIMIT = "time_limit"
    BLOCKED = "blocked"
    """The site refused the agent: CAPTCHA, 403, 429."""
    SITE_ERROR = "site_error"
    """The site failed, and the episode ended on that: 5xx, no connection, no answer, half a page."""
    BROWSER_CRASH = "browser_crash"
    RESET_FAILURE = "reset_failure"
    """No fresh context or world could be had."""
    MODEL_OUTAGE = "model_outage"
    PROMPT_REFUSED = "prompt_refused"
    """The model's server would not take the prompt, as it never will: mostly a page whose text is more tokens than the
    model takes."""

    @property
    def is_agents(self) -> bool:
        """Whether the agent's own behaviour ended the episode; only then may it reach a reward."""
        return self in (Outcome.FINISHED, Outcome.STEP_LIMIT, Outcome.STUCK, Outcome.OVER)


class BrowserFacts(_Record):
    """What the pages of an episode were shown by: runs compare where these are the same."""

    build: str
    """Version of Chromium."""
    executable: str
    platform: str
    """Operating system and processor."""
    sandbox: bool
    """Whether Chromium's own sandbox was on; it can't be for root."""
    viewport: tuple[int, int]
    """Width and height in CSS pixels."""
    device_scale_factor: float
    locale: str
    time_zone: str
    colour_scheme: str
    reduced_motion: bool
    fonts: dict[str, str]
    """What the generic families are drawn with: ``sans-serif`` -> ``DejaVu Sans``."""


class Trajectory(_Record):
    """The record of one rollout (the paper's tau)."""

    version: Literal[1] = TRAJECTORY_VERSION
    id: str
    """``<round>-<task id>-<sample>``: the same episode has the same id in a resumed run."""
    task: Task
    steps: tuple[Step, ...]
    outcome: Outcome
    error: str = ""
    """What went wrong, for outcomes that aren't the agent's."""
    answer: str | None = None
    """None: the agent never answered."""
    final: Observation | None = None
    """What the page showed at the end; None if it could not be observed."""
    final_state: dict[str, Any] | None = None
    """Practice sites: the world's state at the end, for ground truth only; None elsewhere."""
    found: tuple[str, ...] = ()
    """What the pages that the task's checks name held at the end, one text each (`Task.checks`)."""
    score: float | None = None
    """What the suite's own program gave at the end; None: the task has no such."""
    seconds: float = 0.0
    browser: BrowserFacts | None = None
    """None: the episode had no browser."""
    refused: tuple[str, ...] = ()
    """What its pages tried to reach and could not, each once and not without end (`policy.browser_proxy.Gate`):
    ``host:port`` outside the website, and addresses that aren't the web's."""
    side_effects: tuple[SideEffect, ...] = ()
    """The ledger of what it did to the website, in order, not without end (`policy.guard.Guard`)."""

    @property
    def weights(self) -> int | None:
        """The oldest version of the policy that sampled one of its steps; None if none is known."""
        return min((step.weights for step in self.steps if step.weights is not None), default=None)

    @property
    def screenshots(self) -> frozenset[str]:
        """Names of all its pictures."""
        seen = [step.observation for step in self.steps] + ([self.final] if self.final else [])
        return frozenset(observation.screenshot for observation in seen)
