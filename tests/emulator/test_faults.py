"""Fault words in the prompt."""

import pytest

from local.emulator.faults import WORDS, Fault, FaultCounts, Faults

READ = [
    ("An avocado chair", (), "no brackets, no faults"),
    ("a [red] chair", (), "an unknown word is plain text"),
    ("[poll-404]", (Fault("poll-404"),), "without N: always"),
    ("[poll-404:3]", (Fault("poll-404", times=3),), "the first N"),
    ("[poll-404:x]", (), "N is not a number"),
    ("[poll-404:]", (Fault("poll-404"),), "an empty N"),
    ("[never:2]", (), "a word that does not accept N"),
    ("[failed:quotaExceeded]", (Fault("failed", "quotaExceeded"),), "an argument"),
    ("[failed]", (), "a missing argument"),
    ("[failed:a b]", (), "a code has no spaces"),
    ("[status:Succeeded]", (Fault("status", "Succeeded"),), "case is kept"),
    ("[status:somethingNew:2]", (Fault("status", "somethingNew", 2),), "argument and N"),
    ("[status:2]", (Fault("status", "2"),), "a single number is the argument"),
    ("[submit-hang:1.5]", (Fault("submit-hang", "1.5"),), "seconds may have a fraction"),
    ("[submit-hang:2:1]", (Fault("submit-hang", "2", 1),), "seconds and N"),
    ("[submit-hang:soon]", (), "seconds are a number"),
    (
        "[image-redirect:http://127.0.0.1:8080/a?b=c&d=e]",
        (Fault("image-redirect", "http://127.0.0.1:8080/a?b=c&d=e"),),
        "a URL keeps its colons and its query",
    ),
    ("[contentFilter]", (Fault("contentFilter"),), "an optional argument"),
    (
        "[contentFilter:moderation_blocked]",
        (Fault("contentFilter", "moderation_blocked"),),
        "an optional argument that is there",
    ),
    ("[location-origin:http://a.example/path]", (), "an origin has no path"),
    ("x [poll-500:1] y [poll-404:2]", (Fault("poll-500", times=1), Fault("poll-404", times=2)), "in order"),
    ("[[never]]", (Fault("never"),), "brackets in brackets"),
    ("[never", (), "an open bracket"),
]


@pytest.mark.parametrize(("prompt", "faults", "reason"), READ, ids=[row[2] for row in READ])
def test_prompt_is_read_as_faults(prompt: str, faults: tuple[Fault, ...], reason: str) -> None:
    assert Faults.parse(prompt).asked == faults, reason


def test_every_word_is_parsed() -> None:
    samples = {
        "none": "",
        "seconds": ":1",
        "index": ":0",
        "number": ":9",
        "word": ":w",
        "origin": ":http://a",
        "url": ":http://a/",
    }
    for word in WORDS.values():
        assert word.name in Faults.parse(f"[{word.name}{samples[word.argument]}]")


def test_fault_applies_to_n_tries_in_each_scope() -> None:
    faults = Faults.parse("[poll-404:2] [poll-500:1]")
    counts = FaultCounts()

    def applied(scope: str) -> str | None:
        fault = counts.next(scope, faults, ("poll-404", "poll-500"))
        return fault.word if fault else None

    assert [applied("a") for _ in range(4)] == ["poll-404", "poll-404", "poll-500", None]
    assert applied("b") == "poll-404"
    assert counts.next("c", faults, ("image-404",)) is None


def test_fault_without_n_always_applies() -> None:
    faults = Faults.parse("[poll-404]")
    counts = FaultCounts()
    assert all(counts.next("a", faults, ("poll-404",)) for _ in range(100))
