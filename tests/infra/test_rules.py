"""The decorator of the rules."""

from __future__ import annotations

from typing import Final

import pytest

from tests.infra.bicep import Prediction
from tests.infra.rules import every_deployment, given, rule_for

DEPLOYMENTS: Final = {"plain": Prediction("plain", {"network": False}, [], {})}


def test_rule_that_applies_to_no_deployment_fails() -> None:
    @rule_for(given("network"))
    def rule(prediction: Prediction) -> None:
        pytest.fail("not reached")

    with pytest.raises(AssertionError, match="rule applies to no set"):
        rule(DEPLOYMENTS)


def test_failing_rule_names_the_parameter_set() -> None:
    @rule_for(every_deployment)
    def rule(prediction: Prediction) -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as failure:
        rule(DEPLOYMENTS)
    assert failure.value.__notes__ == ["parameter set: plain"]
