from __future__ import annotations

import pytest

from local.host.routes import Router, parse
from local.host.settings import ConfigurationError

GUID = "018f3b1e-5f6a-7b3c-9d2e-0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("generations", "/generations", {}),
        ("generations", "/Generations/", {}),  # neither case nor a last slash matters
        ("generations", "/generations/1", None),
        ("openai/images/generations:submit", "/openai/images/generations:submit", {}),
        ("openai/images/generations:submit", "/openai/images/generationsXsubmit", None),
        ("openai/operations/images/{id}", "/openai/operations/images/abc", {"id": "abc"}),
        ("openai/operations/images/{id}", "/openai/operations/images/", None),
        ("{id}", "/a%20b%2Fc", {"id": "a b%2Fc"}),  # decoded, but an encoded slash stays one segment
        ("{id}", "/%C3%BC", {"id": "ü"}),
        ("{id:guid}", f"/{GUID}", {"id": GUID}),
        ("{id:guid}", f"/{GUID.replace('-', '')}", {"id": GUID.replace("-", "")}),
        ("{id:guid}", "/123", None),
        ("{n:int}", "/-12", {"n": "-12"}),
        ("{n:int}", "/2147483648", None),  # more than 32 bits
        ("{n:int:min(1)}", "/0", None),
        ("{n:int:min(1)}", "/1", {"n": "1"}),
        ("{n:range(1,10)}", "/11", None),
        ("{n:length(2)}", "/ab", {"n": "ab"}),
        ("{n:length(2)}", "/abc", None),
        ("{n:alpha:maxlength(3)}", "/ab1", None),
        ("{n:regex(^gpt-)}", "/gpt-image-1", {"n": "gpt-image-1"}),
        ("images/{id?}", "/images", {}),
        ("images/{id?}", "/images/1", {"id": "1"}),
        ("images/{id:int?}", "/images/x", None),
        ("files/{*rest}", "/files/a/b/c", {"rest": "a/b/c"}),
        ("files/{*rest}", "/files", {}),
        ("{*rest}", "/anything/at/all", {"rest": "anything/at/all"}),
        ("images/{id}.{format}", "/images/1.png", {"id": "1", "format": "png"}),
        ("deployments/{name}:cancel", "/deployments/x:cancel", {"name": "x"}),
        ("a.b", "/axb", None),  # a dot is no wildcard
    ],
)
def test_a_template_matches_like_asp_net(template: str, path: str, parameters: dict[str, str] | None) -> None:
    found = Router([parse("f", template)]).find("GET", path)
    assert (found[1] if found else None) == parameters


@pytest.mark.parametrize(
    ("names", "winner"),
    [
        (("a_rest", "b_literal"), "a_rest"),  # not the more literal one
        (("z_rest", "b_literal"), "b_literal"),
        (("Z_rest", "a_literal"), "a_literal"),  # case does not count
        (("a_rest", "ab_literal"), "ab_literal"),  # compared in upper case, where _ comes after B
    ],
)
def test_of_two_routes_that_fit_the_function_whose_name_sorts_first_wins(names: tuple[str, str], winner: str) -> None:
    templates = dict(zip(names, ("images/{*all}", "images/generations"), strict=True))
    for order in (names, names[::-1]):
        found = Router([parse(name, templates[name]) for name in order]).find("GET", "/images/generations")
        assert found is not None
        assert found[0].function == winner


@pytest.mark.parametrize(
    ("methods", "method", "matches"),
    [
        (None, "PATCH", True),  # no methods: all of them
        (["post"], "POST", True),  # case does not matter in the decorator
        (["GET"], "HEAD", True),
        (["POST"], "HEAD", False),
        (["GET"], "POST", False),
    ],
)
def test_methods_are_a_constraint(methods: list[str] | None, method: str, matches: bool) -> None:
    found = Router([parse("f", "x", methods=methods)]).find(method, "/x")
    assert (found is not None) is matches


def test_two_functions_share_a_route_by_method() -> None:
    router = Router([parse("read", "x/{id}", methods=["GET"]), parse("delete", "x/{id}", methods=["DELETE"])])
    found = router.find("DELETE", "/x/1")
    assert found is not None
    assert found[0].function == "delete"


@pytest.mark.parametrize(("prefix", "path"), [("api", "/api/x"), ("", "/x"), ("a/b", "/a/b/x")])
def test_the_prefix_comes_first(prefix: str, path: str) -> None:
    assert Router([parse("f", "x", prefix=prefix)]).find("GET", path) is not None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{id", "not a route template"),
        ("{id:uuid}", "does not know the constraint 'uuid'"),
        ("{*rest}/x", "must be the last segment"),
        ("{id?}/x", "must be the last segment"),
    ],
)
def test_a_bad_template_is_refused_with_the_functions_name(template: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"function get_thing.*{words}"):
        parse("get_thing", template)
