"""Models that answer elsewhere, behind any API that is OpenAI's in shape."""
