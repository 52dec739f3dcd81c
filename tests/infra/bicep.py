"""The Bicep CLI, and what it predicts that a deployment would make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"

HOW_TO_GET_BICEP = (
    "no Bicep CLI: set BICEP to one, put `bicep` on the PATH, or run `az bicep install` (https://aka.ms/bicep-install)"
)

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
PERSON = "11111111-1111-1111-1111-111111111111"
ENVIRONMENT = "demo"
REGION = "swedencentral"

type Parameters = Mapping[str, Any]
type Resource = dict[str, Any]


def find_bicep() -> str | None:
    """Path of a Bicep CLI: what BICEP names, else on the PATH, else the one that `az bicep install` made."""
    named = os.environ.get("BICEP")
    if named:
        if shutil.which(named) is None:
            raise FileNotFoundError(f"BICEP names {named}, which cannot be run")
        return str(Path(named).resolve()) if os.sep in named else named
    # `az bicep` has no `snapshot` of its own, but it keeps the whole CLI here.
    by_az = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure") / "bin" / "bicep"
    return shutil.which("bicep") or (str(by_az) if by_az.is_file() else None)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Bicep:
    """The compiler."""

    command: str

    def run(self, *arguments: str | Path) -> Said:
        done = subprocess.run(
            [self.command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def compile(self, file: Path) -> dict[str, Any]:
        """The ARM template of a file that compiles without a word."""
        said = self.run("build", file, "--stdout")
        assert (said.status, said.err) == (0, ""), said.err
        return json.loads(said.out)

    def predict(self, parameter_sets: Mapping[str, Parameters]) -> dict[str, Prediction]:
        """What a deployment of main.bicep would make, with each of these sets: what `bicep snapshot` writes.

        All from one process that is asked again and again: a `bicep snapshot` of each would be three seconds.
        """
        with tempfile.TemporaryDirectory() as folder, Calls(self.command) as calls:
            predicted: dict[str, Prediction] = {}
            for number, (name, parameters) in enumerate(parameter_sets.items()):
                file = Path(folder).resolve() / f"{number}.bicepparam"
                file.write_text(_parameter_file(parameters, file.parent), encoding="utf-8")
                metadata = {"subscriptionId": SUBSCRIPTION, "location": REGION}
                answer = calls.call("bicep/getSnapshot", {"path": str(file), "metadata": metadata})
                snapshot = json.loads(answer["snapshot"])
                assert snapshot["diagnostics"] == [], name
                predicted[name] = Prediction(parameters, snapshot["predictedResources"], snapshot["outputs"])
        return predicted


class Calls:
    """JSON-RPC with a Bicep CLI, framed as language servers do."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._number = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._command, "jsonrpc", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._number += 1
        body = json.dumps({"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the Bicep CLI ended"
        answer = json.loads(self._process.stdout.read(length))
        assert "error" not in answer, answer["error"]
        return answer["result"]


@dataclass(frozen=True)
class Prediction:
    """The resources that a deployment would make. What is only known at run time stays ``[reference(…)]``."""

    parameters: Parameters
    resources: list[Resource]
    outputs: dict[str, Any]

    def of_type(self, resource_type: str) -> list[Resource]:
        return [resource for resource in self.resources if resource["type"].lower() == resource_type.lower()]

    def the(self, resource_type: str) -> Resource:
        """The only resource of this type."""
        [resource] = self.of_type(resource_type)
        return resource

    @property
    def app(self) -> Resource:
        return self.the("Microsoft.Web/sites")

    @cached_property
    def settings(self) -> dict[str, str]:
        """The settings of the app."""
        pairs = self.app["properties"]["siteConfig"]["appSettings"]
        names = [pair["name"] for pair in pairs]
        assert len(names) == len(set(names)), "a setting is given twice"
        return {pair["name"]: pair["value"] for pair in pairs}

    def names(self, resource_type: str) -> set[str]:
        """Last parts of the names of all resources of this type."""
        return {resource["name"].rsplit("/", 1)[-1] for resource in self.of_type(resource_type)}


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys not among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            yield from strings(part)


def _parameter_file(parameters: Parameters, folder: Path) -> str:
    # Bicep takes relative paths only.
    main = Path(os.path.relpath(INFRA / "main.bicep", folder)).as_posix()
    given = {"environmentName": ENVIRONMENT, "location": REGION, **parameters}
    return "\n".join([f"using '{main}'", *(f"param {name} = {_literal(value)}" for name, value in given.items()), ""])


def _literal(value: Any) -> str:
    """A JSON value in Bicep's own notation."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${") + "'"
        case list():
            return "[\n" + "".join(f"{_literal(part)}\n" for part in value) + "]"  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return "{\n" + "".join(f"{key}: {_literal(part)}\n" for key, part in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
        case _:
            raise TypeError(type(value).__name__)
