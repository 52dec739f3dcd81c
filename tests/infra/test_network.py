"""The virtual network: which resources it closes, private endpoints, subnets."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Final

from tests.infra.bicep import REGION, Prediction, Resource
from tests.infra.rules import every_deployment, given, pool_regions, rule_for

NETWORKS: Final = "Microsoft.Network/virtualNetworks"

CLOSABLE: Final = {
    "Microsoft.Storage/storageAccounts": {"blob", "queue"},
    "Microsoft.CognitiveServices/accounts": {"account"},
    "Microsoft.KeyVault/vaults": {"vault"},
}
"""The resources that the network closes to the internet, and the private endpoints that each then needs."""

ZONES: Final = {
    "blob": {"privatelink.blob.{0}"},
    "queue": {"privatelink.queue.{0}"},
    "account": {
        "privatelink.cognitiveservices.azure.com",
        "privatelink.openai.azure.com",
        "privatelink.services.ai.azure.com",
    },
    "vault": {"privatelink.vaultcore.azure.net"},
    "sites": {"privatelink.azurewebsites.net"},
}

has_network = given("network")


def without_network(prediction: Prediction) -> bool:
    return not has_network(prediction)


@rule_for(every_deployment)
def test_network_switch_closes_public_access(prediction: Prediction) -> None:
    inside = has_network(prediction)
    closable = [resource for type_ in CLOSABLE for resource in prediction.of_type(type_)]
    assert closable
    for resource in closable:
        properties = resource["properties"]
        assert properties["publicNetworkAccess"] == ("Disabled" if inside else "Enabled"), resource["id"]
        if "networkAcls" in properties:
            assert properties["networkAcls"]["defaultAction"] == ("Deny" if inside else "Allow"), resource["id"]


@rule_for(every_deployment)
def test_app_is_closed_only_with_both_switches(prediction: Prediction) -> None:
    closed = has_network(prediction) and not prediction.parameters.get("appIsPublic", True)
    assert prediction.app["properties"]["publicNetworkAccess"] == ("Disabled" if closed else "Enabled")


@rule_for(without_network)
def test_no_network_resource_without_the_switch(prediction: Prediction) -> None:
    assert prediction.app["properties"].get("virtualNetworkSubnetId") is None
    types = {resource["type"] for resource in prediction.resources}
    assert [type_ for type_ in types if type_.startswith("Microsoft.Network/")] == []


@rule_for(has_network)
def test_each_closed_resource_has_a_private_endpoint(prediction: Prediction) -> None:
    # An existing account gets an endpoint too, although the deployment does not create it.
    expected = {"blob", "queue", "account"}
    expected |= {group for type_, groups in CLOSABLE.items() if prediction.of_type(type_) for group in groups}
    if prediction.app["properties"]["publicNetworkAccess"] == "Disabled":
        expected.add("sites")
    assert set(_endpoints(prediction)) == expected


@rule_for(has_network)
def test_each_private_endpoint_has_its_dns_zones(prediction: Prediction) -> None:
    zone_groups = prediction.of_type("Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    zones_of = {group["name"].partition("/")[0]: repr(group["properties"]) for group in zone_groups}
    links = prediction.of_type("Microsoft.Network/privateDnsZones/virtualNetworkLinks")
    linked = repr([link["name"] for link in links])
    # Azure refuses a privatelink zone in which a network registers its virtual machines.
    assert [link["name"] for link in links if link["properties"]["registrationEnabled"]] == []
    for group, endpoint in _endpoints(prediction).items():
        for zone in ZONES[group]:
            assert zone in zones_of[endpoint["name"]]
            assert zone in linked


@rule_for(given("imagePoolLocations"))
def test_each_account_of_a_pool_has_a_private_endpoint(prediction: Prediction) -> None:
    endpoints = [one for one in prediction.of_type("Microsoft.Network/privateEndpoints") if _group(one) == "account"]
    assert len(endpoints) == (1 + len(pool_regions(prediction)) if has_network(prediction) else 0)
    assert len({one["name"] for one in endpoints}) == len(endpoints)
    # In the region of the network: only the account may be elsewhere.
    assert {one["location"] for one in endpoints} <= {REGION}


def test_app_starts_after_what_it_reads_exists(template: dict[str, Any]) -> None:
    # Predictions have no order. Without it, the app would start in a network where it cannot reach storage or vault.
    modules: dict[str, Any] = template["resources"]
    endpoints = {name for name in modules if name.endswith("Endpoint")} - {"appEndpoint"}
    assert endpoints == {"blobEndpoint", "queueEndpoint", "imageAccountEndpoint", "vaultEndpoint"}
    endpoints |= {"poolEndpoints", "poolAccess"}
    assert endpoints | {"vault"} <= set(modules["app"]["dependsOn"])
    assert "imageAccount" in modules["imageAccess"]["dependsOn"]
    assert "storage" in modules["finishedEvents"]["dependsOn"]


@rule_for(has_network)
def test_app_sends_through_a_subnet_delegated_to_flex(prediction: Prediction) -> None:
    assert "outputs.appSubnetId.value" in prediction.app["properties"]["virtualNetworkSubnetId"]
    subnets = {part["name"]: part["properties"] for part in prediction.the(NETWORKS)["properties"]["subnets"]}
    [delegation] = subnets["app"]["delegations"]
    assert delegation["properties"]["serviceName"] == "Microsoft.App/environments"
    assert "delegations" not in subnets["endpoints"]
    assert all(part["networkSecurityGroup"]["id"] for part in subnets.values())


@rule_for(has_network)
def test_subnets_do_not_overlap(prediction: Prediction) -> None:
    network = prediction.the(NETWORKS)["properties"]
    [space] = map(ip_network, network["addressSpace"]["addressPrefixes"])
    app, endpoints = (ip_network(part["properties"]["addressPrefix"]) for part in network["subnets"])
    assert not app.overlaps(endpoints)
    assert app.prefixlen <= 26
    assert all(part.subnet_of(space) for part in (app, endpoints))  # pyright: ignore[reportArgumentType]


def _endpoints(prediction: Prediction) -> dict[str, Resource]:
    """Private endpoints by the service that each reaches."""
    return {_group(endpoint): endpoint for endpoint in prediction.of_type("Microsoft.Network/privateEndpoints")}


def _group(endpoint: Resource) -> str:
    [connection] = endpoint["properties"]["privateLinkServiceConnections"]
    [group] = connection["properties"]["groupIds"]
    return group
