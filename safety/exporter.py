"""Ray shell: tells Ray's metrics what is read, now and then, and never fails whoever asks it to."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from safety.metrics import Metric, Sample

# Ray's worker tells a gauge once and forgets it, every 10 s: what is set no more is gone after 30 s
EVERY_SECONDS = 4.0
# times as long as a reading has taken, it waits before the next one
PATIENCE = 20.0
_KINDS: dict[str, Callable[..., Any]] = {"gauge": Gauge, "counter": Counter}

log = logging.getLogger(__name__)


class Exporter:
    """Reads values and sets them as Ray's metrics, which every node's agent exports for Prometheus.

    Args:
        metrics: by name.
        read: their values now.
        clock: seconds, monotonic.
        kinds: what makes a metric of Ray, by its kind.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        read: Callable[[], Iterable[Sample]],
        clock: Callable[[], float] = time.monotonic,
        kinds: Mapping[str, Callable[..., Any]] = _KINDS,
    ) -> None:
        self._metrics, self._read, self._clock, self._kinds = metrics, read, clock, kinds
        self._made: dict[str, Any] = {}
        # what a counter has told
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}
        self._next = -math.inf
        self._failed = False

    def tell(self) -> None:
        """Read and set all of them, if the last time is long enough ago."""
        if self._clock() >= self._next:
            self.tell_now()

    def tell_now(self) -> None:
        """Read and set all of them; a failure is logged once."""
        began = self._clock()
        try:
            for sample in self._read():
                self._set(sample)
        except Exception as error:  # nothing may depend on what is only shown
            if not self._failed:
                log.warning("metrics are not told: %s: %s", type(error).__name__, error)
            self._failed = True
        took = self._clock() - began
        self._next = began + max(EVERY_SECONDS, PATIENCE * took)

    def _set(self, sample: Sample) -> None:
        metric = self._metrics[sample.name]
        made = self._made.get(sample.name)
        if made is None:
            made = self._kinds[metric.kind](sample.name, description=metric.text, tag_keys=metric.labels)
            self._made[sample.name] = made
        if metric.kind == "gauge":
            made.set(sample.value, tags=dict(sample.labels))
            return
        place = sample.name, tuple(sample.labels[label] for label in metric.labels)
        more = sample.value - self._told.get(place, 0.0)
        if more > 0:
            made.inc(more, tags=dict(sample.labels))
            self._told[place] = sample.value

    def keep_telling(self, over: threading.Event) -> None:
        """Tell until it is over, in a thread of its own."""
        while not over.wait(1.0):
            self.tell()
