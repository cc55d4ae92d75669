"""Facts about this installation, for `medtrust info` and for bug reports."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from medtrust import __version__

if TYPE_CHECKING:
    from medtrust.host import Host

__all__ = ["about"]

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "pydicom", "nibabel", "pluggy", "pytorch-fid")


def about(host: Host) -> dict[str, dict[str, Any]]:
    """Collect versions, the native core, the device and the plugins.

    Args:
        host: The plugin host to describe.

    Returns:
        Parts by heading, JSON-ready.
    """
    import torch

    from medtrust.ops import info

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none usable by torch"
    return {
        "medtrust": {
            "version": __version__,
            "python": platform.python_version(),
            "machine": platform.platform(),
            "cores": os.cpu_count(),
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "native core": info(),
        "device": {"cuda": device, "torch built for cuda": torch.version.cuda or "no"},
        "plugins": {
            plugin["name"]: f"{plugin['distribution']} {plugin['version']}, {plugin['status']}"
            for plugin in host.plugins()
        },
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
