"""The messages between host and worker, after FunctionRpc.proto of azure-functions-language-worker-protobuf.

The runtime takes these classes as `protos` and asks for nothing of protobuf but constructors, fields and
`WhichOneof`, so they are plain dataclasses. Names are those of the .proto file.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import ClassVar

Strings = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Timestamp:
    seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class NullableString:
    value: str


@dataclass(frozen=True, kw_only=True)
class NullableBool:
    value: bool


@dataclass(frozen=True, kw_only=True)
class NullableDouble:
    value: float


@dataclass(frozen=True, kw_only=True)
class NullableTimestamp:
    value: Timestamp


class _SameSite(IntEnum):
    Lax = 1
    Strict = 2
    ExplicitNone = 3


# The proto's first member is named None, which Python cannot spell; the runtime reads it with getattr.
setattr(_SameSite, "None", 0)


@dataclass(frozen=True, kw_only=True)
class RpcHttpCookie:
    SameSite: ClassVar[type[_SameSite]] = _SameSite
    name: str
    value: str
    domain: NullableString | None = None
    path: NullableString | None = None
    expires: NullableTimestamp | None = None
    secure: NullableBool | None = None
    http_only: NullableBool | None = None
    same_site: int = 0
    max_age: NullableDouble | None = None


@dataclass(frozen=True, kw_only=True)
class RpcHttp:
    """A request (method, url, params, query) or a response (status_code, cookies)."""

    method: str = ""
    url: str = ""
    headers: Strings = field(default_factory=dict[str, str])
    params: Strings = field(default_factory=dict[str, str])
    query: Strings = field(default_factory=dict[str, str])
    status_code: str = ""
    cookies: Sequence[RpcHttpCookie] | None = None
    enable_content_negotiation: bool = False
    body: TypedData | None = None


@dataclass(frozen=True, kw_only=True)
class TypedData:
    """A value of one of these kinds, or none."""

    string: str | None = None
    json: str | None = None
    bytes: builtins.bytes | None = None
    int: builtins.int | None = None
    double: float | None = None
    http: RpcHttp | None = None

    def WhichOneof(self, _: str) -> str | None:  # noqa: N802 - protobuf's name
        return next((kind.name for kind in fields(self) if getattr(self, kind.name) is not None), None)


@dataclass(frozen=True, kw_only=True)
class ParameterBinding:
    name: str
    data: TypedData | None = None

    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name; shared memory is the other one
        return "data"


@dataclass(frozen=True, kw_only=True)
class BindingInfo:
    # Directions. `in` is a word of Python; the runtime only asks for the other two.
    out: ClassVar[int] = 1
    inout: ClassVar[int] = 2
    type: str
    direction: int
    data_type: int | None = None


@dataclass(frozen=True, kw_only=True)
class RpcException:
    message: str = ""
    stack_trace: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class StatusResult:
    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1
    status: int
    exception: RpcException | None = None


@dataclass(frozen=True, kw_only=True)
class RpcTraceContext:
    trace_parent: str = ""
    trace_state: str = ""
    attributes: Strings = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class RetryContext:
    retry_count: int = 0
    max_retry_count: int = 0
    exception: RpcException | None = None


@dataclass(frozen=True, kw_only=True)
class RpcRetryOptions:
    max_retry_count: int
    retry_strategy: str
    delay_interval: object = None
    minimum_interval: object = None
    maximum_interval: object = None


@dataclass(frozen=True, kw_only=True)
class WorkerMetadata:
    runtime_name: str
    runtime_version: str
    worker_version: str
    worker_bitness: str
    custom_properties: Strings


@dataclass(frozen=True, kw_only=True)
class WorkerInitRequest:
    function_app_directory: str
    capabilities: Strings = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class WorkerInitResponse:
    capabilities: Strings
    worker_metadata: WorkerMetadata
    result: StatusResult


@dataclass(frozen=True, kw_only=True)
class RpcFunctionMetadata:
    name: str
    function_id: str
    directory: str
    script_file: str
    entry_point: str
    language: str
    bindings: Mapping[str, BindingInfo]
    raw_bindings: Sequence[str]
    retry_options: RpcRetryOptions | None
    properties: Strings
    managed_dependency_enabled: bool = False
    is_proxy: bool = False


@dataclass(frozen=True, kw_only=True)
class FunctionMetadataResponse:
    use_default_metadata_indexing: bool
    function_metadata_results: Sequence[RpcFunctionMetadata] | None
    result: StatusResult


@dataclass(frozen=True, kw_only=True)
class InvocationRequest:
    invocation_id: str
    function_id: str
    input_data: Sequence[ParameterBinding]
    trigger_metadata: Mapping[str, TypedData] = field(default_factory=dict[str, TypedData])
    trace_context: RpcTraceContext = field(default_factory=RpcTraceContext)
    retry_context: RetryContext = field(default_factory=RetryContext)


@dataclass(frozen=True, kw_only=True)
class InvocationResponse:
    invocation_id: str
    result: StatusResult
    output_data: Sequence[ParameterBinding] = ()
    return_value: TypedData | None = None


@dataclass(frozen=True, kw_only=True)
class StreamingMessage:
    """What comes in: one of the requests."""

    worker_init_request: WorkerInitRequest | None = None
    invocation_request: InvocationRequest | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerRequest:
    """A message with what the proxy worker adds to it: the host's address and these classes."""

    request: StreamingMessage
    properties: Mapping[str, object] = field(default_factory=dict[str, object])
