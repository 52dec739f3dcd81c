#!/bin/sh
# Runs after `azd up` and prints the first request to paste. azd sets the outputs of main.bicep as environment variables.
# The pasted lines fetch the key, not this script: no deployment log contains it.
cat <<EOF

The app is deployed. Generate a first image:

  KEY=\$($FUNCTION_KEY_COMMAND)
  curl -sS -i "$BASE_URL/generations" -H "x-functions-key: \$KEY" -H "Content-Type: application/json" \\
    -d '{"prompt": "a lighthouse in fog, oil on canvas"}'

Then GET the URL in Location until it answers 200: the body contains the links to the images.
EOF
