"""A Functions host for development.

It drives Microsoft's own Python runtime, `azure-functions-runtime`, with the messages that the Azure host would send.
Therefore indexing, binding checks and type conversion are those of Azure. HTTP, timer and queue triggers work; timers
and queues use Azurite.

An app does not start if it needs something else: another trigger or an output binding, a route constraint, an optional
parameter, the level ADMIN, `runOnStartup`, `useMonitor=False`, a retry policy, a connection other than
AzureWebJobsStorage, an identity, `messageEncoding: none`, or an override of host.json by a setting. It also does not
start if storage refuses the host, or if AzureWebJobsStorage is not a connection string. If storage does not answer, at
the start or later, the host logs it once and retries, as Azure's host does.

docs/architecture.md, "The local host", lists the differences from Azure.
"""
