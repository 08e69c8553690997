"""Named, versioned, immutable models. Knows storage and weight files; no drivers, no kernel."""

from llmos.registry.choice import ChooseDriver, DriverChoice
from llmos.registry.config import RegistryConfig
from llmos.registry.registry import Builtin, ModelRegistry

__all__ = ["Builtin", "ChooseDriver", "DriverChoice", "ModelRegistry", "RegistryConfig"]
