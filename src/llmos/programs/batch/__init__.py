"""OpenAI's batches: every line of a JSONL file is one inference, answered once."""
