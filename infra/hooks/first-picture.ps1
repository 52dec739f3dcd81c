# After `azd up`: the first request, ready to paste. azd sets the outputs of infra/main.bicep as environment variables.
# The key is asked for by the pasted lines, not here: no log of a deployment holds it.
Write-Host @"

It is there. A first picture:

  `$key = $env:FUNCTION_KEY_COMMAND
  Invoke-RestMethod "$env:BASE_URL/generations" -Method Post -ContentType application/json ``
    -Headers @{ 'x-functions-key' = `$key } -Body '{"prompt": "a lighthouse in fog, oil on canvas"}'

Then GET urls.result of the answer until its status is succeeded: the links to the pictures are in it.
"@
