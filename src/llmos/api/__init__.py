"""The HTTP edge: OpenAI's API and ours. Talks to the gate only in abi messages over a Channel."""
