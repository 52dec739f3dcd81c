"""A Functions host for development.

It drives Microsoft's own Python runtime, `azure-functions-runtime`, with the messages the Azure host would send, so
that indexing, binding checks and type conversion are those of Azure. Timers and queues work against Azurite.

Not enforced here, as in Core Tools: authorization levels and keys. Not here at all: blob, table, Event Grid and
Durable bindings, retry policies, `functionTimeout`. An app that uses such a binding is refused at start.
"""
