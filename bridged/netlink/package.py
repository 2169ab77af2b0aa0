"""Makes the messages of pyroute2 importable without the rest of it.

`import pyroute2.netlink.rtnl` first runs the package's own `__init__`, which loads everything: 160 modules
and 9 MB, a database among them. This module puts the package into place without running it. It runs once
somebody in this process asks for more than single modules (`from pyroute2 import IPRoute`).

Source: docs.python.org, importlib (module_from_spec), PEP 562 (a module's __getattr__).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_NAME = "pyroute2"


def open_package() -> None:
    """Put the package into `sys.modules` unless it is there."""
    spec = importlib.util.find_spec(_NAME) if _NAME not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def rest(name: str) -> Any:
        if name.startswith("__") or "__getattr__" not in vars(module):
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{_NAME}.{name}") is not None:
            return importlib.import_module(f"{_NAME}.{name}")
        del vars(module)["__getattr__"]
        loader.exec_module(module)
        return getattr(module, name)

    vars(module)["__getattr__"] = rest
    sys.modules[_NAME] = module


open_package()
