"""A Functions host for development.

It drives Microsoft's own Python runtime, `azure-functions-runtime`, with the messages that the Azure host would send.
Therefore indexing, binding checks and type conversion are those of Azure. HTTP, timer and queue triggers work; timers
and queues use Azurite.

An app does not start if it needs something else: another trigger or an output binding, a route constraint, an optional
parameter, `runOnStartup`, `useMonitor=False`, a retry policy, a connection other than AzureWebJobsStorage, an
identity, `messageEncoding: none`, or an override of host.json by a setting. It also does not start if storage refuses
the host, or if AzureWebJobsStorage is not a connection string. If storage does not answer, at the start or later, the
host logs it once and retries, as Azure's host does.

Different from Azure without an error at start:
- No authorization levels and keys, no `functionTimeout`, no `/admin` endpoints and no home page.
- A cookie in a response fails the invocation. Trace context and `schedule_status` are empty.
- Logs have level INFO and go to standard error, whatever host.json says. No Application Insights. A record without an
  invocation id is not printed: a line reports that Azure would drop it.
- After SIGTERM or SIGINT, functions have `--grace` seconds to end, 10 by default. Azure allows up to minutes, but it
  also ends instances within seconds.
- Shorter times, so that a restart is visible soon: a timer's lease and the invisibility of a message last 15 seconds,
  and the longest pause between polls of an empty queue is 2 seconds.
"""
