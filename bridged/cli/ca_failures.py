"""Which failures of the embedded CA are wrong use of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bridged.errors import ConfigurationError

_USAGE_CODES: Final = frozenset({"pki_name", "pki_exists", "pki_duplicate", "pki_missing", "pki_unknown"})


@contextmanager
def ca_failures() -> Iterator[None]:
    """Turn wrong use of the CA into a configuration error, which ends with status 2."""
    from bridged.pki import PkiError

    try:
        yield
    except PkiError as error:
        if error.code in _USAGE_CODES:
            raise ConfigurationError(error.message, code=error.code) from None
        raise
