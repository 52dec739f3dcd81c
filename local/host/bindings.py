"""The bindings that the local host supports, as the Python SDK describes them to a host.

Every option that is missing here is an error at start, not a silent difference from Azure.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from local.host.settings import ConfigurationError, problems


class _Binding(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, extra="forbid")

    name: str
    direction: str = "IN"


class HttpTrigger(_Binding):
    type: Literal["httpTrigger"] = "httpTrigger"
    route: str
    methods: tuple[str, ...] = ()
    """Empty: all of them."""
    auth_level: Literal["ANONYMOUS", "FUNCTION"] = "FUNCTION"


class HttpOutput(_Binding):
    type: Literal["http"] = "http"


class TimerTrigger(_Binding):
    type: Literal["timerTrigger"] = "timerTrigger"
    schedule: str
    run_on_startup: Literal[False] = False
    use_monitor: Literal[True] = True


class QueueTrigger(_Binding):
    type: Literal["queueTrigger"] = "queueTrigger"
    queue_name: str
    connection: Literal["AzureWebJobsStorage"] = "AzureWebJobsStorage"


Trigger = HttpTrigger | TimerTrigger | QueueTrigger
_BINDING: TypeAdapter[Trigger | HttpOutput] = TypeAdapter(Annotated[Trigger | HttpOutput, Field(discriminator="type")])


def read(function: str, text: str) -> Trigger | HttpOutput:
    """Read one binding of a function: JSON, as the runtime lists it."""
    try:
        return _BINDING.validate_json(text)
    except ValidationError as error:
        raise ConfigurationError(
            f"function {function}: the local host does not support the binding {text}: {problems(error)}"
        ) from None
