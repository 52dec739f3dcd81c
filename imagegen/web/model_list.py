"""``GET /models``: what a caller can name as ``model``. The answer holds no secret and no address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imagegen.deployments import Deployment
from imagegen.generation import JsonModel
from imagegen.upstream.protocol import Upstream
from imagegen.web.http import Request, Response


class Model(JsonModel):
    """One deployment, and the requests that it accepts."""

    name: str
    """The value of ``model`` in a request."""
    api: str
    is_default: bool
    sizes: tuple[str, ...]
    size_rule: str
    """The accepted sizes in words: those of `sizes`, and the rule for others."""
    any_size_to: int | None
    """Pixels: the longest side of a size that is not in `sizes`; None if there are no others."""
    most_images: int
    longest_prompt: int
    """Characters."""
    fields: tuple[str, ...]
    """Fields that the model has, in addition to prompt, n, size and model. Others are refused, except ``user``."""


class ModelList(JsonModel):
    value: list[Model]


class ModelListRoute:
    """``GET /models``."""

    def __init__(self, deployments: Sequence[Deployment], upstreams: Mapping[str, Upstream]) -> None:
        # Of a pool, the first: its deployments have one API.
        first = {deployment.name: deployment for deployment in reversed(deployments)}
        self._list = ModelList(
            value=[
                _model(first[name], upstream, is_default=number == 0)
                for number, (name, upstream) in enumerate(upstreams.items())
            ]
        )

    def get(self, request: Request) -> Response:  # noqa: ARG002 - every route takes one
        # Not to_json(): `"anySizeTo": null` is part of the contract.
        return Response(200, self._list.model_dump(mode="json", by_alias=True))


def _model(deployment: Deployment, upstream: Upstream, *, is_default: bool) -> Model:
    limits = upstream.limits
    return Model(
        name=deployment.name,
        api=deployment.api.value,
        is_default=is_default,
        sizes=limits.sizes,
        size_rule=limits.size_words,
        any_size_to=limits.size_rule.longest if limits.size_rule else None,
        most_images=limits.most_images,
        longest_prompt=limits.longest_prompt,
        fields=limits.fields,
    )
