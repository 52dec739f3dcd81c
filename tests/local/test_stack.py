from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.azurite import ACCOUNT_KEY
from local.processes import ChildError, running, start
from local.settings import EMULATOR_PORT, EXAMPLE, LocalSettings, SettingsError, port, read
from local.stack import ROOT, AlreadyRunningError, only_one


def settings(**values: str) -> LocalSettings:
    return LocalSettings(Path("local.settings.json"), values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", '"Values" is missing'),
        ("[]", "must be a JSON object, not a list"),
        ('{"Values": []}', '"Values" must be a JSON object, not a list'),
        ('{"Values": null}', '"Values" must be a JSON object, not null'),
        ('{"Values": {"RETENTION_DAYS": 30}}', "Values.RETENTION_DAYS must be a string in quotes, not a number"),
        ('{"Values": {"A": null}}', "Values.A must be a string in quotes, not null"),
        ('{"Values": {"A": true}}', "Values.A must be a string in quotes, not true"),
        ('{"Values": {"A": {}}}', "Values.A must be a string in quotes, not an object"),
        ('{"Values": {\n"A" "b"}}', ", line 2, column 5: Expecting"),
        ("", ", line 1, column 1: Expecting"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, {})
    message = str(caught.value)
    assert message.startswith("local.settings.json")
    assert words in message
    assert "\n" not in message


def test_a_byte_order_mark_is_no_mistake_and_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "local.settings.json"
    file.write_text('{"Values": {"A": "ü"}}', encoding="utf-8-sig")
    assert read(tmp_path, {}).values == {"A": "ü"}
    file.write_text('{"Values": {"A": "ü"}}', encoding="utf-16")
    with pytest.raises(SettingsError, match=r"local.settings.json is not UTF-8"):
        read(tmp_path, {})


def test_the_shell_wins_and_may_set_what_decides_what_is_started(tmp_path: Path) -> None:
    (tmp_path / EXAMPLE).write_text('{"Values": {"A": "file"}}')
    found = read(tmp_path, {"A": "shell", "IMAGE_DEPLOYMENTS": "[]", "HOME": "/root"})
    assert found.path.name == EXAMPLE
    assert found.values == {"A": "shell", "IMAGE_DEPLOYMENTS": "[]"}
    with pytest.raises(SettingsError, match=r"^this shell's environment: AzureWebJobsStorage"):
        _ = read(tmp_path, {"AzureWebJobsStorage": "nonsense"}).wants_azurite


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("", EMULATOR_PORT),
        ("http://127.0.0.1:7072", 7072),
        ("http://localhost:8000/", 8000),
        ("http://[::1]", EMULATOR_PORT),
        ("https://myname.openai.azure.com", None),
        ("myname.openai.azure.com", None),  # the app says what is wrong with it, so nothing may take its place
        ("localhost:7072", None),
    ],
)
def test_the_emulator_is_started_for_no_endpoint_and_for_this_machines(endpoint: str, expected: int | None) -> None:
    assert settings(AZURE_OPENAI_ENDPOINT=endpoint).emulator_port == expected


def test_an_endpoint_with_an_impossible_port_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^local.settings.json: AZURE_OPENAI_ENDPOINT is not a URL: Port out of"):
        _ = settings(AZURE_OPENAI_ENDPOINT="http://127.0.0.1:99999").emulator_port


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", True),
        ("UseDevelopmentStorage=true", True),
        (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={ACCOUNT_KEY};EndpointSuffix=x.net", False),
    ],
)
def test_azurite_is_started_for_development_storage(value: str, *, expected: bool) -> None:
    assert settings(AzureWebJobsStorage=value).wants_azurite is expected


@pytest.mark.parametrize("value", ["nonsense", "AccountKey=secret", "a=b;c"])
def test_what_is_no_connection_string_is_named_and_not_shown(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^local.settings.json: AzureWebJobsStorage is neither") as caught:
        _ = settings(AzureWebJobsStorage=value).wants_azurite
    assert value not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("", 7071), ("0", 0), ("65535", 65535)])
def test_port(text: str, expected: int) -> None:
    assert port({"PORT": text}, 7071) == expected


@pytest.mark.parametrize("text", ["abc", "99999", "-1", "²", "7 0"])
def test_what_is_no_port_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="PORT must be a number from 0 to 65535"):
        port({"PORT": text}, 7071)


def test_a_second_one_is_refused_with_the_pid_of_the_first_until_that_ends(tmp_path: Path) -> None:
    lock = tmp_path / ".local" / "azurite.lock"
    with (
        only_one(lock),
        pytest.raises(AlreadyRunningError, match=rf"make start already runs \(pid {os.getpid()}\).*`kill "),
        only_one(lock),
    ):
        pass
    with only_one(lock):
        assert lock.read_text() == str(os.getpid())


def test_a_command_that_does_not_start_is_named_with_its_output() -> None:
    command = [sys.executable, "-c", "print('no port is free')"]
    with pytest.raises(ChildError) as caught, start(command, ready="Ready", what="The tea kettle"):
        pass
    assert str(caught.value) == "The tea kettle did not start:\nno port is free"
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(ChildError, match=r"The tea kettle did not start within 0.1 s:\n\(it printed nothing\)"),
        start(silent, ready="Ready", what="The tea kettle", timeout=0.1),
    ):
        pass


def test_the_newest_10000_lines_are_kept() -> None:
    with running([sys.executable, "-c", "for n in range(25_000): print(n)"]) as child:
        child.wait_for("^24999$")
        child.wait()
        kept = list(child.lines())
    assert kept == [f"{n}\n" for n in range(15_000, 25_000)]
    assert child.output == "".join(kept)


def test_lines_past_and_to_come_are_each_given_once() -> None:
    script = "import signal; print('a'); print('b', flush=True); signal.sigwait([signal.SIGTERM]); print('c')"
    blocked = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); {script}"
    with running([sys.executable, "-c", blocked]) as child:
        child.wait_for("b")
        lines = child.lines()
        assert [next(lines), next(lines)] == ["a\n", "b\n"]
        child.signal(signal.SIGTERM)
        assert list(lines) == ["c\n"]


def make(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **env}, timeout=60,
    )  # fmt: skip


PRINT_PROMPT = "--eval=shown:;@printenv PROMPT"


@pytest.mark.parametrize("prompt", ["costs $5 and $(HOME)", "${PATH} $$ 'quoted' \"twice\" # not a comment"])
def test_make_hands_on_a_prompt_as_it_was_typed(prompt: str) -> None:
    assert make(PRINT_PROMPT, "shown", f"PROMPT={prompt}").stdout == f"{prompt}\n"
    assert make(PRINT_PROMPT, "shown", PROMPT=prompt).stdout == f"{prompt}\n"


def test_ctrl_c_while_modules_are_imported_prints_nothing() -> None:
    # The first line of -X importtime for the application's own modules: imports have begun, and take a while yet.
    command = [sys.executable, "-X", "importtime", "-m", "local", "start"]
    with running(command, cwd=ROOT) as child:
        child.wait_for(r"\| +pydantic_core")
        child.signal(signal.SIGINT)
        assert child.wait() == -signal.SIGINT
        assert list(child.lines())[-1:]  # to the end of its output
    assert "Traceback" not in child.output
