from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from local.host.__main__ import GRACE, main
from local.processes import Child, ChildError, python, start
from tests.host.conftest import APPS, ROOT, CopyApp, RunHost


@pytest.fixture(scope="module")
def host() -> Generator[tuple[Child, str]]:
    """A host without storage: HTTP functions need none."""
    command = python("local.host", "--port", "0", "--root", str(APPS / "http"))
    with start(command, ready=r"Ready: http", cwd=ROOT) as child:
        yield child, child.ready_line.split()[1]


@pytest.fixture
def base(host: tuple[Child, str]) -> str:
    return host[1]


def raw(
    base: str, method: str, path: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request unchanged: `requests` would normalize its path and headers."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers or []:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/api/echo/literal", 200, "literal"),  # its function's name sorts before that of {id}
        ("POST", "/api/openai/images/generations:submit", 202, ""),  # a colon is an ordinary character
        ("GET", "/api/things/7", 200, "7"),
        ("GET", "/api/things/7?code=1", 200, "7"),
        ("GET", "/api/unnamed", 200, "by name"),  # the route defaults to the function's name
        ("DELETE", "/api/things/7", 404, ""),  # a wrong method does not match, as in Azure: not 405
        ("GET", "/api/nowhere", 404, ""),
        ("GET", "/unnamed", 404, ""),  # without the prefix
        ("GET", "/api/fails", 500, ""),
    ],
)
def test_request_reaches_the_function_of_its_route(base: str, method: str, path: str, status: int, text: str) -> None:
    response, content = raw(base, method, path)
    assert (response.status, content.decode()) == (status, text)


def test_function_receives_request_as_azure_sends_it(base: str) -> None:
    path = "/api/echo/a%20b%2Fc?x=1&y=&x=2&%C3%BC=%26"
    headers = [("X-Many", "one"), ("X-Many", "two"), ("X-Case", "Kept")]
    _, content = raw(base, "PUT", path, headers, bytes(range(256)))
    seen = json.loads(content)
    assert seen["method"] == "PUT"
    assert seen["url"] == f"http://{urlsplit(base).netloc}{path}"
    assert seen["route"] == {"id": "a b%2Fc"}  # an encoded slash stays encoded
    assert seen["query"] == {"x": "1,2", "ü": "&"}  # repeated keys are joined, empty ones left out
    assert seen["headers"]["x-many"] == "one,two"
    assert seen["headers"]["x-case"] == "Kept"
    assert seen["body"].encode("latin-1") == bytes(range(256))


def test_request_url_has_host_header_of_client(base: str) -> None:
    response = requests.get(f"{base}/echo/x", headers={"Host": "images.example:8443"}, timeout=10)
    assert response.json()["url"] == "http://images.example:8443/api/echo/x"


def test_response_keeps_status_headers_and_bytes(base: str) -> None:
    accepted = requests.post(f"{base}/openai/images/generations:submit", timeout=10)
    assert accepted.headers["operation-location"] == "https://there"
    assert accepted.headers["Retry-After"] == "1"
    binary = requests.get(f"{base}/bytes", timeout=10)
    assert binary.content == bytes(range(256))
    assert binary.headers["Content-Type"] == "application/octet-stream"


def test_cookie_is_500_and_named_in_log(host: tuple[Child, str]) -> None:
    child, base = host
    assert requests.get(f"{base}/cookies", timeout=10).status_code == 500
    child.wait_for("AttributeError: module 'local.host.messages' has no attribute 'RpcHttpCookie'")


def test_head_has_the_headers_of_get_and_no_body(base: str) -> None:
    response = requests.head(f"{base}/unnamed", timeout=10)
    assert (response.status_code, response.headers["Content-Length"], response.content) == (200, "7", b"")


def test_head_does_not_reach_a_get_function(base: str) -> None:
    response = requests.head(f"{base}/bytes", timeout=10)
    assert (response.status_code, response.content) == (404, b"")


def test_chunked_body_arrives_empty(base: str) -> None:
    seen = requests.post(f"{base}/echo/x", data=iter([b"one", b"two"]), timeout=10).json()
    assert seen["headers"]["transfer-encoding"] == "chunked"
    assert seen["body"] == ""
    assert requests.post(f"{base}/echo/x", data=b"onetwo", timeout=10).json()["body"] == "onetwo"


def test_exception_of_the_app_is_logged_on_one_line(run_host: RunHost) -> None:
    with run_host("http") as (child, base):
        assert requests.get(f"{base}/refuses", timeout=10).status_code == 500
        child.wait_for(r"refuses \(GET /api/refuses\) failed \d+ ms: RefusedError: the reason it refused$")
    assert "Traceback" not in child.output


def test_exception_is_500_and_its_trace_is_logged(host: tuple[Child, str]) -> None:
    child, base = host
    assert requests.get(f"{base}/fails", timeout=10).content == b""
    child.wait_for("ValueError: the reason it failed")
    child.wait_for(r"fails \(GET /api/fails\) failed")


def test_query_string_is_not_logged(host: tuple[Child, str]) -> None:
    child, base = host
    requests.get(f"{base}/echo/logged?token=s3cret", timeout=10)
    child.wait_for(r"echo \(GET /api/echo/logged\) ok 200 \d+ ms")
    assert "s3cret" not in child.output


def test_sync_functions_overlap(base: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(requests.get, f"{base}/meet", timeout=20) for _ in range(2)]
    assert [call.result().text for call in calls] == ["met", "met"]


def test_one_worker_thread_runs_one_function_at_a_time(run_host: RunHost) -> None:
    with run_host("http", PYTHON_THREADPOOL_THREAD_COUNT="1") as (_, base), ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(requests.get, f"{base}/meet", timeout=20) for _ in range(2)]
    assert [call.result().status_code for call in calls] == [500, 500]


def test_empty_route_prefix_puts_functions_at_root(run_host: RunHost, copy_app: CopyApp) -> None:
    app = copy_app("http", {"extensions": {"http": {"routePrefix": ""}}})
    with run_host(app) as (child, base):
        assert urlsplit(base).path == ""
        assert requests.get(f"{base}/unnamed", timeout=10).text == "by name"
        child.wait_for(rf"unnamed: \[all\] {base}/unnamed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_idle_host_stops_at_once(run_host: RunHost, number: signal.Signals) -> None:
    with run_host("http") as (child, base):
        session = requests.Session()
        session.get(f"{base}/unnamed", timeout=10)  # its open connection must not delay the end
        started = time.monotonic()
        child.signal(number)
        assert child.wait() == 0
        assert time.monotonic() - started < GRACE  # it does not wait for open connections
        session.close()
    assert "Traceback" not in child.output
    assert child.output.rstrip().endswith("Stopped")


@pytest.mark.parametrize("grace", [GRACE, 5])
def test_running_function_ends_before_host_stops(run_host: RunHost, grace: float) -> None:
    with run_host("http", grace) as (child, base), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(requests.get, f"{base}/slow/2", timeout=10)
        child.wait_for("slow started")
        child.signal(signal.SIGTERM)
        _until_refused(base)
        assert not answer.done()
        assert answer.result().text == "slept"
        assert child.wait() == 0
    assert child.output.rstrip().endswith("Stopped")


def test_endless_function_is_abandoned_after_grace(run_host: RunHost) -> None:
    with run_host("http", 5) as (child, base), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(requests.get, f"{base}/slow/60", timeout=90)
        child.wait_for("slow started")
        started = time.monotonic()
        child.signal(signal.SIGTERM)
        assert child.wait() == 0
        assert 5 <= time.monotonic() - started < 6
        assert isinstance(answer.exception(), requests.ConnectionError)
    child.wait_for("1 invocations did not end within 5 s")


def test_second_signal_ends_host_at_once(run_host: RunHost) -> None:
    with run_host("http") as (child, base), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(requests.get, f"{base}/slow/60", timeout=90)
        child.wait_for("slow started")
        child.signal(signal.SIGTERM)
        _until_refused(base)
        child.signal(signal.SIGTERM)
        assert child.wait(2) == 128 + signal.SIGTERM
        assert isinstance(answer.exception(), requests.ConnectionError)


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "soon"])
def test_grace_must_be_a_finite_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--grace", text])
    assert "argument --grace: " in capsys.readouterr().err


def test_port_in_use_is_named_in_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = python("local.host", "--port", str(port), "--root", str(APPS / "http"))
        with pytest.raises(ChildError, match=f"error: cannot listen on port {port}"), start(command, ready="Ready:"):
            pass


def _until_refused(base: str) -> None:
    """Wait until the host accepts no connection: then it has received the signal."""
    address = urlsplit(base)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address.hostname or "", address.port or 0), 1).close()
        except OSError:
            return
        time.sleep(0.02)
    pytest.fail("the host still accepts connections")
