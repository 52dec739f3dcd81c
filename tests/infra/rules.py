"""Rules: one test for each, on every predicted deployment that the rule applies to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

from tests.infra.bicep import REGION, Prediction

type Check = Callable[[Prediction], None]
type RuleTest = Callable[[Mapping[str, Prediction]], None]


def every_deployment(_: Prediction) -> bool:
    return True


def given(parameter: str) -> Callable[[Prediction], bool]:
    """Select the parameter sets that turn this switch on, or give this parameter a value."""
    return lambda prediction: bool(prediction.parameters.get(parameter))


def has(resource_type: str) -> Callable[[Prediction], bool]:
    """Select the deployments that create a resource of this type."""
    return lambda prediction: bool(prediction.of_type(resource_type))


def pool_regions(prediction: Prediction) -> set[str]:
    """The regions that get an account of their own, in addition to the first account."""
    parameters = prediction.parameters
    first = parameters.get("imageAccountLocation") or REGION
    regions = set(parameters.get("imagePoolLocations", []))
    return regions if parameters.get("existingImageAccountName") else regions - {first}


def rule_for(applies: Callable[[Prediction], bool]) -> Callable[[Check], RuleTest]:
    """Turn the check of one deployment into one test of all deployments that it applies to.

    The test fails if it applies to none, because the rule would check nothing.
    """

    def decorate(check: Check) -> RuleTest:
        def test(predictions: Mapping[str, Prediction]) -> None:
            selected = [prediction for prediction in predictions.values() if applies(prediction)]
            assert selected, f"{check.__name__} applies to no set in tests/infra/parameter_sets.py: add one"
            for prediction in selected:
                try:
                    check(prediction)
                except Exception as error:
                    error.add_note(f"parameter set: {prediction.name}")
                    raise

        # pytest reports the name and the file of the check, and injects the argument of the test.
        signature = inspect.signature(test)
        functools.update_wrapper(test, check)
        test.__dict__["__signature__"] = signature
        return test

    return decorate
