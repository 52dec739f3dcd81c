"""An app whose requirements were not installed."""

import azure.functions as func
import there_is_no_such_module  # pyright: ignore[reportMissingImports]

app = func.FunctionApp()
print(there_is_no_such_module)  # noqa: T201
