# Types of what `__init__` loads lazily; a stub, so that the module itself imports nothing.
from llmos.sdk import AsyncClient as AsyncClient
from llmos.sdk import Client as Client

__version__: str
