from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from imagegen.settings import read_settings
from local.azurite import ACCOUNT_KEY
from local.demo import main as demo
from local.processes import ChildError, running, start
from local.recovery import Unfinished
from local.settings import EXAMPLE, LocalSettings, SettingsError, check, keys, port, read
from local.stack import FUNCTION_KEY, ROOT, Stack, functions_host
from local.start import Command, Running, environment, greeting, unfinished_notes


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
def test_invalid_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, {})
    message = str(caught.value)
    assert message.startswith("local.settings.json")
    assert words in message
    assert "\n" not in message


def test_file_may_have_a_byte_order_mark_but_must_be_utf8(tmp_path: Path) -> None:
    file = tmp_path / "local.settings.json"
    file.write_text('{"Values": {"A": "ü"}}', encoding="utf-8-sig")
    assert read(tmp_path, {}).values == {"A": "ü"}
    file.write_text('{"Values": {"A": "ü"}}', encoding="utf-16")
    with pytest.raises(SettingsError, match=r"local.settings.json is not UTF-8"):
        read(tmp_path, {})


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / EXAMPLE).write_text('{"Values": {"A": "file"}}')
    found = read(tmp_path, {"A": "shell", "IMAGE_DEPLOYMENTS": "[]", "HOME": "/root"})
    assert found.path.name == EXAMPLE
    assert found.values == {"A": "shell", "IMAGE_DEPLOYMENTS": "[]"}
    with pytest.raises(SettingsError, match=r"^environment: AzureWebJobsStorage"):
        _ = read(tmp_path, {"AzureWebJobsStorage": "nonsense"}).wants_azurite


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("", True),
        ("http://127.0.0.1:7072", True),  # of the example
        ("http://localhost:7072/", True),
        ("http://localhost:8000", False),  # the developer's own server
        ("http://127.0.0.1:7072/gateway", False),
        ("https://myname.openai.azure.com", False),
        ("myname.openai.azure.com", False),  # not a URL: the app reports it, so no emulator may replace it
        ("localhost:7072", False),
        ("http://127.0.0.1:99999", False),
    ],
)
def test_emulator_starts_only_for_its_own_address(endpoint: str, *, expected: bool) -> None:
    assert settings(AZURE_OPENAI_ENDPOINT=endpoint).wants_emulator is expected


@pytest.mark.parametrize(
    ("endpoint", "port"), [("http://127.0.0.1:7072", 7072), ("http://localhost/a", 80), ("https://a.example.com", None)]
)
def test_endpoint_of_the_environment_is_never_replaced(tmp_path: Path, endpoint: str, port: int | None) -> None:
    (tmp_path / EXAMPLE).write_text((ROOT / EXAMPLE).read_text())
    found = read(tmp_path, {"AZURE_OPENAI_ENDPOINT": endpoint})
    assert found.wants_emulator is False
    assert found.endpoint_port == port
    # The API of the example says nothing about another service. A real one must not get the key of the emulator.
    assert "AZURE_OPENAI_API" not in found.values
    assert ("AZURE_OPENAI_API_KEY" in found.values) == (port is not None)


@pytest.mark.parametrize("path", ["", "/openai/v1", "/openai/deployments/d/images/generations"])
def test_own_server_needs_no_other_setting(tmp_path: Path, path: str) -> None:
    (tmp_path / EXAMPLE).write_text((ROOT / EXAMPLE).read_text())
    found = read(tmp_path, {"AZURE_OPENAI_ENDPOINT": f"http://127.0.0.1:9000{path}"})
    settings = check(environment(found))
    assert {deployment.endpoint for deployment in settings.deployments} == {"http://127.0.0.1:9000"}
    assert len(settings.deployments) > 1


def test_example_does_not_replace_the_environment(tmp_path: Path) -> None:
    (tmp_path / EXAMPLE).write_text((ROOT / EXAMPLE).read_text())
    asked = {
        "AZURE_OPENAI_ENDPOINT": "https://a.example.com",
        "AZURE_OPENAI_API": "flux",
        "AZURE_OPENAI_API_VERSION": "preview",
    }
    found = read(tmp_path, asked)
    assert {name: found.values.get(name) for name in asked} == asked
    assert found.from_shell == set(asked)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", True),
        ("UseDevelopmentStorage=true", True),
        (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={ACCOUNT_KEY};EndpointSuffix=x.net", False),
    ],
)
def test_azurite_starts_for_development_storage(value: str, *, expected: bool) -> None:
    assert settings(AzureWebJobsStorage=value).wants_azurite is expected


@pytest.mark.parametrize("value", ["nonsense", "AccountKey=secret", "a=b;c"])
def test_invalid_connection_string_is_not_shown(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^local.settings.json: AzureWebJobsStorage is neither") as caught:
        _ = settings(AzureWebJobsStorage=value).wants_azurite
    assert value not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("", 7071), ("0", 0), ("65535", 65535)])
def test_valid_port(text: str, expected: int) -> None:
    assert port({"PORT": text}, 7071) == expected


@pytest.mark.parametrize("text", ["abc", "99999", "-1", "²", "7 0"])
def test_invalid_port_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="PORT must be a number from 0 to 65535"):
        port({"PORT": text}, 7071)


@pytest.mark.parametrize(("text", "expected"), [("", False), ("0", False), ("1", True)])
def test_function_key_is_optional(text: str, *, expected: bool) -> None:
    assert keys({"KEYS": text}) is expected
    assert keys({}) is False


def test_invalid_choice_of_keys_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^KEYS must be 1 .* or 0, not 'yes'"):
        keys({"KEYS": "yes"})


@pytest.mark.parametrize(("key", "words"), [(None, "not required"), (FUNCTION_KEY, f"{FUNCTION_KEY} (for development")])
def test_greeting_has_the_function_key(key: str | None, words: str) -> None:
    host = cast("Any", None)
    stack = Stack("http://127.0.0.1:1/api", None, None, host, None, key)
    [default] = read_settings(
        {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "AZURE_OPENAI_ENDPOINT": "https://a.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    ).deployments
    text = greeting(
        Running(stack, settings(AZURE_OPENAI_ENDPOINT="https://a.example.com"), Path("data"), default, ("A note.",))
    )
    assert "The app         http://127.0.0.1:1/api/health " in text
    assert "https://a.example.com (AZURE_OPENAI_ENDPOINT of local.settings.json; no emulator)" in text
    assert "Default model   gpt-image-2 (API 'images'); all models: http://127.0.0.1:1/api/models\n" in text
    assert "\nA note.\n" in text
    assert f"Function key    {words}" in text
    assert (f"-H 'x-functions-key: {FUNCTION_KEY}'" in text) is (key is not None)


GO_ON = "The last run was killed. Nothing is lost: {} on."


@pytest.mark.parametrize(
    ("found", "was_killed", "repeats", "expected"),
    [
        (Unfinished(0, 0), True, True, []),
        (Unfinished(0, 0), False, True, []),
        (Unfinished(1, 0), False, True, ["From the last run, 1 generation goes on."]),
        (Unfinished(2, 0), True, False, [GO_ON.format("2 generations go")]),
        (
            Unfinished(2, 1),
            True,
            True,
            [GO_ON.format("2 generations go"), "1 call was cut: it is repeated and may be billed again."],
        ),
        (
            Unfinished(3, 2),
            False,
            True,
            ["From the last run, 3 generations go on.", "2 calls were cut: they are repeated and may be billed again."],
        ),
        (
            Unfinished(3, 2),
            True,
            False,
            [
                "The last run was killed. 1 generation goes on.",
                "2 calls were cut: they fail with outcomeUnknown (REPEAT_LOST_CALLS=false).",
            ],
        ),
        (
            Unfinished(1, 1),
            True,
            False,
            ["1 call was cut: it fails with outcomeUnknown (REPEAT_LOST_CALLS=false)."],
        ),
    ],
)
def test_note_says_what_a_run_left(found: Unfinished, *, was_killed: bool, repeats: bool, expected: list[str]) -> None:
    assert unfinished_notes(found, was_killed=was_killed, repeats=repeats) == expected


@pytest.mark.parametrize("data", ["~nouser/x", "~nouser"])
def test_folder_of_an_unknown_user_is_named(data: str) -> None:
    with pytest.raises(SettingsError, match=rf"^DATA={data} names a user that does not exist\. Name a folder, such as"):
        Command.read({"DATA": data})


def test_command_that_does_not_start_is_named() -> None:
    command = [sys.executable, "-c", "print('no port is free')"]
    with pytest.raises(ChildError) as caught, start(command, ready="Ready", name="The kettle"):
        pass
    assert str(caught.value) == "The kettle did not start:\nno port is free"
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(ChildError, match=r"The kettle did not start within 0.1 s:\n\(no output\)"),
        start(silent, ready="Ready", name="The kettle", timeout=0.1),
    ):
        pass


def test_the_newest_10000_lines_are_kept() -> None:
    with running([sys.executable, "-c", "for n in range(25_000): print(n)"]) as child:
        child.wait_for("^24999$")
        child.wait()
        kept = list(child.lines())
    assert kept == [f"{n}\n" for n in range(15_000, 25_000)]
    assert child.output == "".join(kept)


def test_past_and_future_lines_are_yielded_once() -> None:
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
def test_make_passes_the_prompt_unchanged(prompt: str) -> None:
    assert make(PRINT_PROMPT, "shown", f"PROMPT={prompt}").stdout == f"{prompt}\n"
    assert make(PRINT_PROMPT, "shown", PROMPT=prompt).stdout == f"{prompt}\n"


def test_make_passes_the_choice_of_keys() -> None:
    assert make("--eval=shown:;@printenv KEYS", "shown", "KEYS=1").stdout == "1\n"


def test_ctrl_c_during_imports_prints_nothing() -> None:
    # -X importtime prints this line when the imports have begun, and before they end.
    command = [sys.executable, "-X", "importtime", "-m", "local", "start"]
    with running(command, cwd=ROOT) as child:
        child.wait_for(r"\| +pydantic_core")
        child.signal(signal.SIGINT)
        assert child.wait() == 0
        assert list(child.lines())[-1:]  # read to the end of the output
    assert "Traceback" not in child.output


def test_functions_host_can_be_core_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    func = tmp_path / "func"
    func.write_text(
        "#!/bin/sh\n"
        'echo "Functions:"\n'
        'echo "  start_generation: [POST] http://localhost:$3/api/generations"\n'
        'echo "$1 $2 in $PWD, $SETTING"\n'
        "exec sleep 60\n"
    )
    func.chmod(0o755)
    monkeypatch.setenv("FUNCTIONS_HOST", str(func))
    with functions_host({"SETTING": "a setting"}, port=7099) as (base_url, host):
        assert base_url == "http://localhost:7099/api"
        host.wait_for(f"start --port in {ROOT}, a setting")


@pytest.mark.parametrize("prompt", ["", " \t"])
def test_demo_refuses_a_blank_prompt(
    prompt: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMPT", prompt)
    assert demo([]) == 1
    assert "PROMPT is blank: write a prompt, or leave PROMPT out" in capsys.readouterr().err
