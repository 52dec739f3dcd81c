"""Function keys: `--function-key`."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import requests

from local.processes import python, start
from tests.host.conftest import APPS, ROOT, RunHost

KEY = "the key"


@pytest.fixture(scope="module")
def base() -> Generator[str]:
    command = python("local.host", "--port", "0", "--root", str(APPS / "http"), "--function-key", KEY)
    with start(command, ready=r"Ready: http", cwd=ROOT) as child:
        yield child.ready_line.split()[1]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("locked", {}, 401),
        ("locked", {"x-functions-key": KEY}, 200),
        ("locked", {"x-functions-key": "another"}, 401),
        ("locked", {"x-functions-key": ""}, 401),
        ("locked?code=the%20key", {}, 200),
        ("locked?code=another", {}, 401),
        ("locked?code=the%20key&code=another", {}, 200),  # the first one counts
        ("locked?code=the%20key", {"x-functions-key": "another"}, 401),  # the header comes first
        ("locked", {"Authorization": f"Bearer {KEY}"}, 401),
        ("unnamed", {}, 200),  # anonymous
        ("unnamed", {"x-functions-key": "another"}, 200),
    ],
)
def test_function_needs_its_key(base: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = requests.get(f"{base}/{path}", headers=headers, timeout=10)
    assert answer.status_code == status
    assert (answer.content == b"") is (status == 401)


def test_connection_works_after_a_401(base: str) -> None:
    with requests.Session() as session:
        refused = session.post(f"{base}/locked", data=b"x" * 1_000_000, timeout=10)
        assert refused.status_code == 401
        assert session.get(f"{base}/locked", headers={"x-functions-key": KEY}, timeout=10).text == "unlocked"


def test_no_key_is_needed_without_the_option(run_host: RunHost) -> None:
    with run_host("http") as (_, base):
        assert requests.get(f"{base}/locked", timeout=10).text == "unlocked"
