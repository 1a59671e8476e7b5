"""Recognises pages by which a website, or who guards it, turns a robot away: CAPTCHAs, challenges, refusals."""

from collections.abc import Sequence

_STATUSES = {403, 429}
_MAX_CHARS = 1500
"""Longer pages are about something, even if they speak of a CAPTCHA."""
_PHRASES = (
    "captcha",
    "are you a robot",
    "not a robot",
    "robot check",
    "verify you are human",
    "verifying you are human",
    "human verification",
    "unusual traffic",
    "checking your browser",
    "checking if the site connection is secure",
    "just a moment...",
    "attention required! | cloudflare",
    "sorry, you have been blocked",
    "enable javascript and cookies to continue",
    "press & hold",
    "pardon our interruption",
    "incapsula incident",
    "blocked by network security",
    "automated access",
    "access to this page has been denied",
    "bot detection",
)
_REFUSALS = (("access denied", "reference #"), ("request blocked", "cloudfront"), ("the request is blocked", "azure"))
"""Two phrases, neither of which says it alone."""
_CHALLENGE_HOSTS = (
    "challenges.cloudflare.com",
    "captcha-delivery.com",
    "hcaptcha.com",
    "recaptcha/api2/bframe",
    "recaptcha/enterprise/bframe",
    "arkoselabs.com",
    "/_incapsula_resource",
    "px-captcha",
    "awswaf.com",
)
"""Parts of the addresses of frames that hold a challenge."""


def find_block(status: int, title: str, text: str, frames: Sequence[str] = ()) -> str:
    """How a page turns a robot away, in words; "" if it doesn't. `frames`: addresses of the frames in it."""
    if status in _STATUSES:
        return f"HTTP {status}"
    said = f"{title}\n{text}".casefold().replace("\N{HORIZONTAL ELLIPSIS}", "...")
    if len(said) >= _MAX_CHARS:
        return ""
    if any(phrase in said for phrase in _PHRASES):
        return "asks for a CAPTCHA or refuses robots"
    if any(part in frame.casefold() for frame in frames for part in _CHALLENGE_HOSTS):
        return "shows a challenge"
    return "refuses robots" if any(all(word in said for word in pair) for pair in _REFUSALS) else ""
