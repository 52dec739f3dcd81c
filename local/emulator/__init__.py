"""A local emulator of the Azure OpenAI image APIs, for development and tests. See docs/emulator.md."""
