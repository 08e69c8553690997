"""A Prometheus histogram cheap enough to observe once per token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """One label set: `observe` is a binary search and two additions, no lock (one thread)."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class FastHistogram(Collector):
    """Exposed as any Prometheus histogram; `labels` gives the series to observe on.

    A label whose value is empty is one that the series does not have, as Prometheus sees it.
    """

    def __init__(self, name: str, doc: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.doc, self.label_names = name, doc, tuple(labels)
        self._bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """One value for each label, in order."""
        series = self._series.get(values)
        if series is None:
            assert len(values) == len(self.label_names), self.name
            series = self._series[values] = Series(self._bounds)
        return series

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.doc, labels=self.label_names)
        for values, series in self._series.items():
            buckets, seen = [], 0
            for bound, count in zip((*self._bounds, float("inf")), series.counts, strict=True):
                seen += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), float(seen)))
            family.add_metric(values, buckets, series.total)
        yield family
