"""Log lines that a query can parse."""

from __future__ import annotations

import logging

import pytest

from imagegen.events import log_event


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("019ab0f0", "x.y a=019ab0f0"),
        (7, "x.y a=7"),
        (None, "x.y"),  # left out
        (0, "x.y a=0"),
        ("", "x.y a=''"),
        ("two words", "x.y a='two words'"),
        ("a=b", "x.y a='a=b'"),
        # A value from a caller cannot add a line.
        ("1\nrequest.answered status=200", "x.y a='1\\nrequest.answered status=200'"),
        ("\x1b[2J", "x.y a='\\x1b[2J'"),
        ('"', "x.y a='\"'"),
        ("%s %d", "x.y a='%s %d'"),
    ],
)
def test_event_is_one_line_of_name_and_fields(caplog: pytest.LogCaptureFixture, value: object, expected: str) -> None:
    with caplog.at_level(logging.INFO, "imagegen"):
        log_event("x.y", a=value)
    assert [record.getMessage() for record in caplog.records] == [expected]
    assert caplog.records[0].levelno == logging.INFO
