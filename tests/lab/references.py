"""Work of others that ours is compared with: where it takes longer, the machine is slower, not we."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

LIBRARIES = ("asyncio", "ssl", "cryptography.x509", "pydantic", "pyroute2", "structlog", "typer", "yaml")
TIMES = 3


class _Families(Collector):
    def __init__(self, exposition: str) -> None:
        self._families = list(text_string_to_metric_families(exposition))

    def collect(self) -> Iterable[Metric]:
        return self._families


def writing(exposition: str) -> float:
    """CPU seconds that the Prometheus client library takes to write these families again."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(exposition))
    gc.collect()
    return min(_write(registry) for _ in range(TIMES))


def _write(registry: CollectorRegistry) -> float:
    began = time.thread_time()
    generate_latest(registry)
    return time.thread_time() - began


def loading(*modules: str) -> float:
    """Seconds that a new interpreter takes to load them and to end."""
    return min(_load(modules, time.monotonic) for _ in range(TIMES))


def loading_work(*modules: str) -> float:
    """CPU seconds of the same."""
    return min(_load(modules, _work_of_children) for _ in range(TIMES))


def _load(modules: tuple[str, ...], clock: Callable[[], float]) -> float:
    began = clock()
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], timeout=60, check=True)
    return clock() - began


def _work_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
