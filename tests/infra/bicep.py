"""The Bicep CLI, and the resources that it predicts for a deployment of main.bicep."""

from __future__ import annotations

import json
import os
import re
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
    "no Bicep CLI found: set BICEP to its path, put `bicep` on the PATH, or run `az bicep install` "
    "(https://aka.ms/bicep-install)"
)

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
PERSON = "11111111-1111-1111-1111-111111111111"
ENVIRONMENT = "demo"
REGION = "swedencentral"

type Parameters = Mapping[str, Any]
type Resource = dict[str, Any]


def find_bicep() -> str | None:
    """Path of the Bicep CLI: from BICEP, else from the PATH, else from `az bicep install`."""
    configured = os.environ.get("BICEP")
    if configured:
        if shutil.which(configured) is None:
            raise FileNotFoundError(f"BICEP={configured}: not an executable file. Set it to the path of a Bicep CLI.")
        return str(Path(configured).resolve()) if os.sep in configured else configured
    # `az bicep` has no subcommand for predictions, but it stores the complete CLI here.
    by_az = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure") / "bin" / "bicep"
    return shutil.which("bicep") or (str(by_az) if by_az.is_file() else None)


@dataclass(frozen=True, slots=True)
class Bicep:
    """The Bicep CLI at a path."""

    command: str

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.command, *arguments], capture_output=True, text=True, check=False, timeout=300)

    def compile(self, file: Path) -> dict[str, Any]:
        """Compile a file into an ARM template. Any error or warning fails the test."""
        # A wrong property is only a warning, with exit status 0.
        built = self.run("build", file, "--stdout")
        assert (built.returncode, built.stderr) == (0, ""), built.stderr
        return json.loads(built.stdout)

    def predict(self, parameter_sets: Mapping[str, Parameters]) -> dict[str, Prediction]:
        """Predict the resources of main.bicep for each parameter set, as `bicep snapshot` does.

        One process answers all sets: starting `bicep snapshot` for each would take three seconds a set.
        """
        with tempfile.TemporaryDirectory() as folder, JsonRpc(self.command) as rpc:
            predicted: dict[str, Prediction] = {}
            for number, (name, parameters) in enumerate(parameter_sets.items()):
                file = Path(folder).resolve() / f"{number}.bicepparam"
                file.write_text(_parameter_file(parameters, file.parent), encoding="utf-8")
                metadata = {"subscriptionId": SUBSCRIPTION, "location": REGION}
                answer = rpc.call("bicep/getSnapshot", {"path": str(file), "metadata": metadata})
                snapshot = json.loads(answer["snapshot"])
                assert snapshot["diagnostics"] == [], name
                predicted[name] = Prediction(name, parameters, snapshot["predictedResources"], snapshot["outputs"])
        return predicted


class JsonRpc:
    """JSON-RPC client of a Bicep CLI, with the framing of language servers."""

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
        assert length, "the Bicep CLI ended without an answer"
        answer = json.loads(self._process.stdout.read(length))
        assert "error" not in answer, answer["error"]
        return answer["result"]


@dataclass(frozen=True, repr=False)
class Prediction:
    """The resources of one deployment. A value that only Azure knows stays an expression: ``[reference(…)]``."""

    name: str
    """Name of the parameter set."""
    parameters: Parameters
    resources: list[Resource]
    outputs: dict[str, Any]

    def __repr__(self) -> str:
        return f"<deployment {self.name!r}>"

    def of_type(self, resource_type: str) -> list[Resource]:
        return [resource for resource in self.resources if resource["type"].lower() == resource_type.lower()]

    def the(self, resource_type: str) -> Resource:
        """Return the only resource of this type."""
        [resource] = self.of_type(resource_type)
        return resource

    @property
    def app(self) -> Resource:
        return self.the("Microsoft.Web/sites")

    @cached_property
    def settings(self) -> dict[str, str]:
        """The app settings, by name."""
        pairs = self.app["properties"]["siteConfig"]["appSettings"]
        names = [pair["name"] for pair in pairs]
        assert len(names) == len(set(names)), "an app setting has two values"
        return {pair["name"]: pair["value"] for pair in pairs}

    def names(self, resource_type: str) -> set[str]:
        """Last segment of the name of each resource of this type."""
        return {resource["name"].rsplit("/", 1)[-1] for resource in self.of_type(resource_type)}


def scope_of(assignment: Resource) -> str:
    """The id of the resource that a role assignment applies to. Azure computes the name of some assignments."""
    identifier: str = assignment["id"]
    if extension := re.match(r"\[extensionResourceId\('([^']+)', 'Microsoft\.Authorization/", identifier):
        return extension[1]
    return identifier.partition("/providers/Microsoft.Authorization/")[0]


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, without the keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            yield from strings(part)


def _parameter_file(parameters: Parameters, folder: Path) -> str:
    # Bicep accepts relative paths only.
    main = Path(os.path.relpath(INFRA / "main.bicep", folder)).as_posix()
    given = {"environmentName": ENVIRONMENT, "location": REGION, **parameters}
    return "\n".join([f"using '{main}'", *(f"param {name} = {_literal(value)}" for name, value in given.items()), ""])


def _literal(value: Any) -> str:
    """Write a JSON value in Bicep syntax."""
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
