"""The plugin host: discover, isolate, name and load what plugins contribute.

`build_host()` makes a host; there is no global one. Building it imports plugin modules, which import neither torch nor
numpy; what a plugin contributes is imported when `Host.load` is asked for it. A plugin that fails costs its own
contributions and nobody else's: it becomes a `PluginFailure` in `Host.failures`.
"""

from medtrust.host.contributions import KINDS, Contribution
from medtrust.host.isolation import BrokenPluginError, naming_exits
from medtrust.host.registry import Host, build_host

__all__ = ["KINDS", "Contribution", "Host", "BrokenPluginError", "build_host", "naming_exits"]
