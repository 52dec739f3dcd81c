"""Values as people paste them: quotes, brackets and placeholders that were meant to be replaced."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_QUOTES: Final = frozenset("\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb")
_BRACKETS: Final = {"<": ">", "{": "}", "(": ")", "[": "]"}
_KEY_VAULT: Final = "@Microsoft.KeyVault("

_WORD: Final = (
    r"your[-_ ](?:own[-_ ]?)?(?:azure[-_ ]?)?(?:openai[-_ ]?|foundry[-_ ]?|ai[-_ ]?)?"
    r"(?:resource|endpoint|deployment|model|key|secret|account|storage|container|host|domain|gateway|app|project|"
    r"region|value|name|id|api|service)(?:[-_ ]?(?:name|url|key|id|here))*"
    r"|\.{3}|\u2026"
)
_PLACEHOLDER: Final = re.compile(rf"(?<![a-z0-9])(?:{_WORD})(?![a-z0-9])", re.IGNORECASE)
_WHOLE_PLACEHOLDER: Final = re.compile(r"(?:change|replace)[-_]?(?:me|this)|x{3,}|todo", re.IGNORECASE)
"""Only as the whole value: todo-app is a name."""
_PLACEHOLDER_HOST: Final = re.compile(r"(?<=//)(?:NAME|RES|RESOURCE|RESOURCE[-_]NAME|ACCOUNT)(?=\.)")
_HEADER: Final = re.compile(
    r"(?:authorization|(?:x-)?api-key|ocp-apim-subscription-key|x-functions-key)\s*[:=]\s*(?:bearer\s+)?|bearer\s+",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"%\w+%|\$\w+|\$\{.*\}|\$\(.*\)")

_PART: Final = r"(?:[a-z]{1,19}|[0-9]{1,8}|[a-z0-9]{1,6})"
_PLAIN_NAME: Final = re.compile(
    rf"(?!sk-)(?=.{{1,64}}$)(?:[\w.-]{{1,19}}|{_PART}(?:[-_.]{_PART})*)", re.ASCII | re.IGNORECASE
)
"""Short, or of parts that are a word, a number or as short as ``v2``. A UUID and a key have longer mixed parts."""


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
    if hidden := next((one for one in text if not (one.isprintable() or one.isspace())), None):
        raise ValueError(f"contains the invisible character {named_character(hidden)}. Remove it.")
    if _BRACKETS.get(text[0]) == text[-1] or (not is_free and re.search(r"[<>{}]", text)):
        raise ValueError("looks like a placeholder. Write your value instead, without the brackets.")
    if _VARIABLE.fullmatch(text):
        raise ValueError("is the name of a variable that was not replaced. Write the value itself.")
    found = _PLACEHOLDER.fullmatch(text) if is_free else _PLACEHOLDER.search(text) or _PLACEHOLDER_HOST.search(text)
    if found := found or _WHOLE_PLACEHOLDER.fullmatch(text):
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
    if found := re.search(r"\s", text):
        blank = "a blank or a line break" if found[0].isascii() else f"the blank {named_character(found[0])}"
        raise ValueError(f"contains {blank}. Remove it.")
    return text


def refuse_wrong_key(text: str) -> None:
    """Refuse a key that cannot be meant, or that no header can carry."""
    refuse_paste_error(text, is_free=True)
    refuse_key_error(text)
    refuse_blanks(text)


def refuse_key_error(text: str) -> None:
    """Refuse a key that no header can carry, or that has the name of its header in front."""
    if header := _HEADER.match(text):
        raise ValueError(f"has more than the key. Remove '{header[0]}' in front.")
    if found := re.search(r"[^ -~]", text):
        raise ValueError(
            f"contains the character {named_character(found[0])}, which no key has. Copy the key again, without "
            "formatting."
        )


def refuse_other_than_ascii(text: str) -> None:
    """Refuse a dash or a letter that looks like the one of a name, and is another one."""
    if found := re.search(r"[^\x00-\x7f]", text):
        raise ValueError(
            f"contains the character {named_character(found[0])}. Use ASCII letters, digits, dots, hyphens and "
            "underscores."
        )


def named_character(character: str) -> str:
    """The code point and the name, because an editor may not show the character."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}{f' ({name.lower()})' if name else ''}"


def is_plain_name(text: str) -> bool:
    """Whether a message can quote the text. False for what looks like a key that was pasted into the wrong place."""
    return _PLAIN_NAME.fullmatch(text) is not None


def named(text: str) -> str:
    """A name for a message; its length if it looks like a key."""
    return f"'{text}'" if is_plain_name(text) else f"a text of {len(text)} characters"
