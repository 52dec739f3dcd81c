"""A Functions host for development.

It drives Microsoft's own Python runtime, `azure-functions-runtime`, with the messages that the Azure host would send.
Therefore indexing, binding checks and type conversion are those of Azure. HTTP, timer and queue triggers work; timers
and queues use Azurite.

An app that declares anything else does not start: output bindings, other triggers, route constraints, `runOnStartup`,
retry policies, identity-based connections. Not enforced: authorization levels and keys, `functionTimeout`.
"""
