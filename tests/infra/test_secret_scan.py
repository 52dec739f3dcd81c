"""The secret scanner of `make lint` reports the keys that this project could leak, and nothing in this repository."""

from __future__ import annotations

import base64
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Final

from local.azurite import ACCOUNT_KEY
from tests.infra.bicep import ROOT

# Made here, because a key in this file would be a finding. The same in every run.
_DICE: Final = random.Random(4711)
_LETTERS: Final = string.ascii_letters + string.digits
STORAGE_KEY: Final = base64.b64encode(_DICE.randbytes(64)).decode()
OLD_MODEL_KEY: Final = _DICE.randbytes(16).hex()
MODEL_KEY: Final = (
    f"{''.join(_DICE.choices(_LETTERS, k=52))}JQQJ99BKACYeBjFXJ3w3AAAB{'ACOG'}{''.join(_DICE.choices(_LETTERS, k=4))}"
)
FUNCTION_KEY: Final = f"{base64.urlsafe_b64encode(_DICE.randbytes(30)).decode()}AzFu{_DICE.randbytes(4).hex()}=="
_LINE: Final = "-----{} PRIVATE KEY-----"

LEAKS: Final = {
    "storage key": ("client.py", f'STORAGE = "AccountName=pictures;AccountKey={STORAGE_KEY}"'),
    "old model key": ("client.py", f'client = connect("https://images.example.com", "{OLD_MODEL_KEY}")'),
    "model key": ("client.py", f'client = connect("https://images.example.com", "{MODEL_KEY}")'),
    "function key": ("client.py", f'answer = post(url, headers={{"x-functions-key": "{FUNCTION_KEY}"}})'),
    "settings": ("local.settings.json", f'{{"Values": {{"AZURE_OPENAI_API_KEY": "{MODEL_KEY}"}}}}'),
    "shell": ("call.sh", f"KEY={FUNCTION_KEY}"),
    "docs": ("notes.md", f'curl "https://images.example.com/api/generations?code={FUNCTION_KEY}"'),
    "private key": (
        "key.pem",
        f"{_LINE.format('BEGIN')}\n{base64.encodebytes(_DICE.randbytes(600)).decode()}{_LINE.format('END')}",
    ),
    # Public, and allowed only in local/azurite.py.
    "key of Azurite": ("other.py", f'KEY = "{ACCOUNT_KEY}"'),
}


def scan(*files: str | Path) -> subprocess.CompletedProcess[str]:
    hook = Path(sys.executable).with_name("detect-secrets-hook")
    command = [hook, "--baseline", ".secrets.baseline", *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_kind_of_key_is_reported(tmp_path: Path) -> None:
    files = [tmp_path / str(number) / name for number, (name, _) in enumerate(LEAKS.values())]
    for file, (_, text) in zip(files, LEAKS.values(), strict=True):
        file.parent.mkdir()
        file.write_text(f"{text}\n", encoding="utf-8")
    found = scan(*files)
    assert found.returncode == 1
    missed = [kind for kind, file in zip(LEAKS, files, strict=True) if f"{file}:" not in found.stdout]
    assert missed == []
    assert [kind for kind, (_, text) in LEAKS.items() if text in found.stdout] == []


def test_repository_has_no_secret() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = scan(*tracked.rstrip("\0").split("\0"))
    assert (found.returncode, found.stdout) == (0, "")


def test_only_the_public_key_of_azurite_is_allowed() -> None:
    # The baseline could allow a secret too.
    assert '"results": {}' in (ROOT / ".secrets.baseline").read_text(encoding="utf-8")
    command = ["git", "grep", "--name-only", "pragma: " + "allowlist"]
    allowed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert allowed.split() == ["local/azurite.py"]
