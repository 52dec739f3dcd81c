"""The messages between the host and Microsoft's runtime, after FunctionRpc.proto.

The runtime receives this module as `protos`. It uses only constructors, attributes and `WhichOneof`, so plain classes
replace those of protobuf. The names are those of the .proto file. A message that is missing here, such as
RpcHttpCookie, fails the invocation that needs it.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import ClassVar

_Strings = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RpcHttp:
    """A request (method, url, params, query) or a response (status_code)."""

    method: str = ""
    url: str = ""
    headers: _Strings = field(default_factory=dict[str, str])
    params: _Strings = field(default_factory=dict[str, str])
    query: _Strings = field(default_factory=dict[str, str])
    status_code: str = ""
    cookies: None = None
    enable_content_negotiation: bool = False
    body: TypedData | None = None


@dataclass(frozen=True, kw_only=True)
class TypedData:
    """A value of one of these kinds, or none."""

    string: str | None = None
    json: str | None = None
    bytes: builtins.bytes | None = None
    http: RpcHttp | None = None

    def WhichOneof(self, _: str) -> str | None:  # noqa: N802 - protobuf's name
        return next((kind.name for kind in fields(self) if getattr(self, kind.name) is not None), None)


@dataclass(frozen=True, kw_only=True)
class ParameterBinding:
    name: str
    data: TypedData

    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return "data"


@dataclass(frozen=True, kw_only=True)
class RpcException:
    message: str = ""
    stack_trace: str = ""


@dataclass(frozen=True, kw_only=True)
class StatusResult:
    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1
    status: int
    exception: RpcException | None = None


# The runtime constructs the following. Only the attributes that the host reads are declared.

WorkerMetadata = RpcRetryOptions = SimpleNamespace


class WorkerInitResponse(SimpleNamespace):
    result: StatusResult


class FunctionMetadataResponse(SimpleNamespace):
    function_metadata_results: Sequence[RpcFunctionMetadata] | None


class RpcFunctionMetadata(SimpleNamespace):
    name: str
    function_id: str
    raw_bindings: Sequence[str]
    retry_options: SimpleNamespace | None


class BindingInfo(SimpleNamespace):
    # A data type and two directions that the runtime compares with.
    undefined: ClassVar[int] = 0
    out: ClassVar[int] = 1
    inout: ClassVar[int] = 2


class InvocationResponse(SimpleNamespace):
    result: StatusResult
    return_value: TypedData | None = None
