"""Values as people paste them: quotes, brackets and placeholders that were meant to be replaced."""

from __future__ import annotations

import re
from typing import Final

_QUOTES: Final = frozenset("\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb")
_BRACKETS: Final = {"<": ">", "{": "}", "(": ")", "[": "]"}
_KEY_VAULT: Final = "@Microsoft.KeyVault("

_WORD: Final = (
    r"your[-_ ](?:own[-_ ]?)?(?:azure[-_ ]?)?(?:openai[-_ ]?|foundry[-_ ]?|ai[-_ ]?)?"
    r"(?:resource|endpoint|deployment|model|key|secret|account|storage|container|host|domain|gateway|app|project|"
    r"region|value|name|id|api|service)(?:[-_ ]?(?:name|url|key|id|here))*"
    r"|(?:change|replace)[-_]?(?:me|this)|x{3,}|todo|\.{3}|\u2026"
)
_PLACEHOLDER: Final = re.compile(rf"(?<![a-z0-9])(?:{_WORD})(?![a-z0-9])", re.IGNORECASE)
_PLACEHOLDER_HOST: Final = re.compile(r"(?<=//)(?:NAME|RES|RESOURCE|RESOURCE[-_]NAME|ACCOUNT)(?=\.)")
_VARIABLE: Final = re.compile(r"%\w+%|\$\w+|\$\{.*\}|\$\(.*\)")


def refuse_paste_error(text: str, *, is_free: bool = False) -> None:
    """Refuse a value that cannot be meant.

    Parameters
    ----------
    is_free
        The value may have any characters inside, as a key may. Only what encloses it counts.

    Raises
    ------
    ValueError
        The message names what is there, and quotes nothing but a known placeholder.
    """
    refuse_reference(text)
    refuse_quotes(text)
    if not all(one.isprintable() or one.isspace() for one in text):
        raise ValueError("contains a control character. Remove it.")
    if _BRACKETS.get(text[0]) == text[-1] or (not is_free and re.search(r"[<>{}]", text)):
        raise ValueError("looks like a placeholder. Write your value instead, without the brackets.")
    if _VARIABLE.fullmatch(text):
        raise ValueError("is the name of a variable that was not replaced. Write the value itself.")
    found = _PLACEHOLDER.fullmatch(text) if is_free else _PLACEHOLDER.search(text) or _PLACEHOLDER_HOST.search(text)
    if found:
        raise ValueError(f"has the placeholder '{found[0]}'. Replace it by your value.")


def refuse_reference(text: str) -> None:
    """Refuse the text of a reference that Azure could not resolve. As a key, this text would be no secret."""
    if text.startswith(_KEY_VAULT):
        raise ValueError(
            "is a Key Vault reference that Azure could not resolve. Check the secret, and the app's role on the vault."
        )


def refuse_quotes(text: str) -> None:
    """Refuse a value in quotes: app settings and JSON files would pass them on as a part of the value."""
    marks = [mark for mark in (text[0], text[-1]) if mark in _QUOTES]
    if marks:
        raise ValueError(f"has quotes ({marks[0]}) around its value. Remove them.")


def refuse_blanks(text: str) -> str:
    """Refuse white space inside a value."""
    if re.search(r"\s", text):
        raise ValueError("contains a blank or a line break. Remove it.")
    return text
