"""A local emulator of the Azure OpenAI image APIs: a developer's tool and a test double. See docs/emulator.md."""
