"""One metric family in one line: name, text and values, as the catalogue spells them.

Decides how a family is built from plain numbers. Must never know what is measured.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ingestor.histogram import Histogram


def gauge(name: str, text: str, value: float) -> Metric:
    """A value that goes up and down."""
    return GaugeMetricFamily(name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """A count since the start; its exposed name ends in `_total`."""
    return CounterMetricFamily(name, text, value=value)


def labelled(name: str, text: str, label: str, values: Mapping[Any, int], always: tuple[str, ...]) -> Metric:
    """Counts by one label; the values in `always` stand at zero from the start."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in {**dict.fromkeys(always, 0), **{str(k): v for k, v in values.items()}}.items():
        family.add_metric([key], value)
    return family


def labelled_gauge(
    name: str, text: str, label: str, values: Mapping[str, int], always: tuple[str, ...]
) -> Metric:
    """Values by one label; those in `always` stand at zero from the start."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in {**dict.fromkeys(always, 0), **values}.items():
        family.add_metric([key], value)
    return family


def histogram(name: str, text: str, values: Histogram) -> Metric:
    """A histogram of ours in the form that Prometheus wants."""
    return HistogramMetricFamily(name, text, buckets=values.buckets(), sum_value=values.sum)
