"""The native data plane for pip and wheels; everything else about this package is in pyproject.toml.

Where it cannot be built the package is still good: it has the portable data plane.
BRIDGED_PORTABLE_ONLY=1 leaves it out on purpose, BRIDGED_NATIVE_REQUIRED=1 makes its failure an error.
"""

import os
from pathlib import Path

from setuptools import setup

MANIFEST = Path("native/py/Cargo.toml")
extensions = []
if os.environ.get("BRIDGED_PORTABLE_ONLY") != "1" and MANIFEST.exists():
    from setuptools_rust import Binding, RustExtension, Strip

    extensions.append(
        RustExtension(
            "bridged._native",
            path=str(MANIFEST),
            binding=Binding.PyO3,
            args=["--locked"],
            debug=False,
            strip=Strip.Debug,
            py_limited_api=True,
            optional=os.environ.get("BRIDGED_NATIVE_REQUIRED") != "1",
        )
    )

# One wheel for every CPython from 3.11 on; without the native data plane it is a pure one.
setup(rust_extensions=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}})
