"""The HTTP edge: an OpenAI-compatible API on Quart-Trio, and the hardened Hypercorn driver under it."""
