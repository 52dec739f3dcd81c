"""An app with a parameter that no binding fills."""

import azure.functions as func

app = func.FunctionApp()


@app.route("x")
def mismatched(request: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("never")
