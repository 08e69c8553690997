"""Sinks by their names, each imported only where it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmos.errors import ConfigError, PluginError
from llmos.tracking.sink import Sink


def open_sink(name: str, folder: Path) -> Sink:
    """Raises PluginError naming what to install, ConfigError for a name that is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return MAKERS[name](folder)
    except KeyError:
        raise ConfigError(f"tracking.sinks: {name!r} is none of {', '.join(MAKERS)}") from None
    except ImportError:
        raise PluginError(
            f"tracking.sinks: {name} needs an extra: pip install 'llmos[{name}]'"
        ) from None


def _mlflow(folder: Path) -> Sink:
    from llmos.tracking.mlflow import MlflowSink

    return MlflowSink(folder)


def _tensorboard(folder: Path) -> Sink:
    from llmos.tracking.tensorboard import TensorboardSink

    return TensorboardSink(folder)


def _wandb(folder: Path) -> Sink:
    from llmos.tracking.wandb import WandbSink

    return WandbSink(folder)


MAKERS: dict[str, Callable[[Path], Sink]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
