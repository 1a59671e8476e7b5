"""Personal data and credentials: what an agent on a website of strangers has no business to type."""

import re

from policy.action_class import Target

_CREDENTIAL_FIELD = re.compile(
    r"\b(?:passwords?|passcode|passphrase|pin(?: code)?|cvv|cvc|security code|card number|iban|social security|ssn"
    r"|one.?time (?:code|password)|verification code|api key|passport)\b",
    re.IGNORECASE,
)
_CREDENTIAL_TOKEN = re.compile(r"(?:^|\s)(?:cc-\S+|(?:current|new)-password|one-time-code)(?=\s|$)", re.IGNORECASE)
_PERSONAL_TOKEN = re.compile(
    r"(?:^|\s)(?:email|tel(?:-\S+)?|street-address|address-line\d|bday(?:-\S+)?)(?=\s|$)", re.I
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"\+\d[\d ()./-]{6,}\d|(?<!\d)\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)")
_DIGITS = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")


def find_private(text: str, target: Target | None, may_type: tuple[str, ...]) -> str:
    """What is private about a text, or about the field that it is for, in words; "" if nothing.

    `may_type`: e-mail addresses, phone numbers and the like that aren't private.
    """
    if target is not None and _asks_for_credentials(target):
        return "a password or payment data is asked for there"
    allowed = {value.casefold() for value in may_type}
    asks_personal = target is not None and (
        target.field_type in ("email", "tel") or _PERSONAL_TOKEN.search(target.autocomplete)
    )
    if asks_personal and text.strip() and text.strip().casefold() not in allowed:
        return "personal data is asked for there"
    for value in may_type:
        text = re.sub(re.escape(value), " ", text, flags=re.IGNORECASE)
    if any(is_card_number(digits) for digits in _DIGITS.findall(text)):
        return "it holds a card number"
    if _EMAIL.search(text):
        return "it holds an e-mail address"
    return "it holds a phone number" if _PHONE.search(text) else ""


def _asks_for_credentials(target: Target) -> bool:
    by_type = target.field_type == "password" or _CREDENTIAL_TOKEN.search(target.autocomplete)
    return bool(by_type or _CREDENTIAL_FIELD.search(target.name))


def is_card_number(text: str) -> bool:
    """Whether 13 to 19 digits, spaces and hyphens left out, are a card number by their check digit.

    Source: ISO/IEC 7812-1, annex B (Luhn): from the right, every second digit counts double, its digits added.
    """
    digits = [int(char) for char in text if char.isdigit()][::-1]
    doubled = [digit * 2 - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(digits)]
    return 13 <= len(digits) <= 19 and any(digits) and sum(doubled) % 10 == 0
