#!/bin/sh
# After `azd up`: the first request, ready to paste. azd sets the outputs of infra/main.bicep as environment variables.
# The key is asked for by the pasted lines, not here: no log of a deployment holds it.
cat <<EOF

It is there. A first picture:

  KEY=\$($FUNCTION_KEY_COMMAND)
  curl -sS -i "$BASE_URL/generations" -H "x-functions-key: \$KEY" -H "Content-Type: application/json" \\
    -d '{"prompt": "a lighthouse in fog, oil on canvas"}'

Then GET the URL in Location until it answers 200: the links to the pictures are in its body.
EOF
