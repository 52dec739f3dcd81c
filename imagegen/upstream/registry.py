"""The table of image APIs. A new API is one module, one line in this table, and its name in ``ImageApi``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from imagegen.deployments import Deployment, ImageApi
from imagegen.upstream.direct import DirectApi, DirectUpstream
from imagegen.upstream.flux import flux
from imagegen.upstream.mai import mai
from imagegen.upstream.openai_images import openai_images
from imagegen.upstream.operations import OperationsUpstream
from imagegen.upstream.protocol import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    allowed_origins: Iterable[str]
    max_image_bytes: int
    connections: int


type _Open = Callable[[Deployment, _Options], Upstream]


def _direct(api_of: Callable[[Deployment], DirectApi]) -> _Open:
    def open_direct(deployment: Deployment, options: _Options) -> Upstream:
        return DirectUpstream(
            deployment,
            api_of(deployment),
            connections=options.connections,
            max_image_bytes=options.max_image_bytes,
        )

    return open_direct


def _operations(deployment: Deployment, options: _Options) -> Upstream:
    return OperationsUpstream(deployment, allowed_origins=options.allowed_origins, connections=options.connections)


_APIS: Final[Mapping[ImageApi, _Open]] = {
    ImageApi.OPERATIONS: _operations,
    ImageApi.IMAGES: _direct(openai_images),
    ImageApi.FLUX: _direct(flux),
    ImageApi.MAI: _direct(mai),
}


def open_upstream(
    deployment: Deployment, *, allowed_origins: Iterable[str], max_image_bytes: int, connections: int
) -> Upstream:
    """The upstream of a deployment. Opens no connection yet.

    Parameters
    ----------
    allowed_origins
        Origins of operation-locations, in addition to that of the endpoint.
    max_image_bytes
        The largest image. It limits the length of a response that holds images.
    connections
        The number of threads that call at the same time.
    """
    options = _Options(allowed_origins=allowed_origins, max_image_bytes=max_image_bytes, connections=connections)
    return _APIS[deployment.api](deployment, options)
