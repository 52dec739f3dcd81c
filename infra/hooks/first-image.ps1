# Runs after `azd up` and prints the first request to paste. azd sets the outputs of main.bicep as environment variables.
# The pasted lines fetch the key, not this script: no deployment log contains it.
Write-Host @"

The app is deployed. Generate a first image:

  `$key = $env:FUNCTION_KEY_COMMAND
  Invoke-RestMethod "$env:BASE_URL/generations" -Method Post -ContentType application/json ``
    -Headers @{ 'x-functions-key' = `$key } -Body '{"prompt": "a lighthouse in fog, oil on canvas"}'

Then GET urls.result of the response until its status is succeeded: it contains the links to the images.
"@
