"""``GET /models``: what a caller can choose from, for connectors that offer a list. No secret, no address."""

from __future__ import annotations

from collections.abc import Mapping

from imagegen.deployments import Deployment
from imagegen.generation import JsonModel
from imagegen.upstream.protocol import Upstream
from imagegen.web.http import Request, Response


class Model(JsonModel):
    """One deployment, and what it takes."""

    name: str
    """What callers write as ``model``."""
    api: str
    is_default: bool
    sizes: tuple[str, ...]
    """Empty: any WIDTHxHEIGHT, or ``auto``."""
    any_size_to: int | None
    """Pixels: beside `sizes`, multiples of 16 up to this edge."""
    most_images: int
    longest_prompt: int
    """Characters."""
    fields: tuple[str, ...]
    """Beside prompt, n, size and model."""


class ModelList(JsonModel):
    value: list[Model]


class ModelListRoute:
    """Answers with the list."""

    def __init__(self, deployments: tuple[Deployment, ...], upstreams: Mapping[str, Upstream]) -> None:
        self._list = ModelList(
            value=[
                _model(deployment, upstreams[deployment.name], is_default=number == 0)
                for number, deployment in enumerate(deployments)
            ]
        )

    def get(self, request: Request) -> Response:  # noqa: ARG002 - every route takes one
        return Response(200, self._list.model_dump(mode="json", by_alias=True))


def _model(deployment: Deployment, upstream: Upstream, *, is_default: bool) -> Model:
    limits = upstream.limits
    return Model(
        name=deployment.name,
        api=deployment.api.value,
        is_default=is_default,
        sizes=limits.sizes,
        any_size_to=limits.any_size_to,
        most_images=limits.most_images,
        longest_prompt=limits.longest_prompt,
        fields=limits.fields,
    )
