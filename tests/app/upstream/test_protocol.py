"""The words for callers in the outcomes of a call."""

from __future__ import annotations

import pytest

from imagegen.upstream.protocol import Lost, Throttled, Unavailable


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        # After "The last try failed:".
        (Unavailable("status 503"), "the image service answered 503"),
        (Unavailable("status 503", 4.0, "ServerBusy"), "the image service answered 503 (ServerBusy)"),
        (Unavailable("no response (ReadTimeout)"), "no response (ReadTimeout)"),
        (
            Unavailable("status 200 with a body that is not JSON"),
            "the image service answered 200 with a body that is not JSON",
        ),
        # After "Throttled by the image service:".
        (Throttled("status 429"), "status 429"),
        (Throttled("status 429", 4.0, "insufficient_quota"), "insufficient_quota"),
        (Throttled("temporarily blocked"), "temporarily blocked"),
        (Throttled("Out of quota"), "Out of quota"),
        (Throttled("Out of quota", code="quotaExceeded"), "quotaExceeded"),
        # After "The last problem:".
        (Lost("status 502"), "status 502"),
        (Lost("status 502", "502 Bad Gateway"), "status 502: 502 Bad Gateway"),
    ],
)
def test_cause_of_an_outcome(outcome: Unavailable | Throttled | Lost, cause: str) -> None:
    assert outcome.cause == cause
