"""An app with a trigger the local host does not have."""

import azure.functions as func

app = func.FunctionApp()


@app.blob_trigger(arg_name="blob", path="container/{name}", connection="AzureWebJobsStorage")  # pyright: ignore[reportUnknownMemberType]
def stored(blob: func.InputStream) -> None: ...
