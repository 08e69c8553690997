"""OpenAI's bodies as abi messages, and outcomes as OpenAI's answers: pure, without the web."""
