"""The home folder, the database, content-addressed blobs and uploads. Knows no models."""

from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home
from llmos.storage.uploads import Uploads

__all__ = [
    "Blobs",
    "Database",
    "Home",
    "StorageConfig",
    "Uploads",
    "open_database",
    "open_home",
]
