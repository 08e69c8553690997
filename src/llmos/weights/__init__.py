"""Reading, checking and hashing weight files. Light (msgspec and the standard library), torch-free.

Everything read here is hostile input: whatever is not as the format says is `ModelRejected`, with
the file and the reason.
"""

from llmos.weights.digest import file_digest, folder_digest
from llmos.weights.facts import ModelFacts
from llmos.weights.inspection import inspect

__all__ = ["ModelFacts", "file_digest", "folder_digest", "inspect"]
