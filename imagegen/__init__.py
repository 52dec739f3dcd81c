"""Image generations as durable work: start, poll, copy to Blob Storage. Nothing in here imports azure.functions."""
