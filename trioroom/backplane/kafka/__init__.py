"""Room traffic through one topic of Apache Kafka, or of what else speaks its protocol.

``location`` says where and how, ``client`` is what librdkafka is told, ``producer`` and ``reader`` with its ``feed``
are the two directions, each with a thread; ``marks`` are places in the log, ``link`` supervises all of it, and ``log``
is what others see of that. ``rooms`` are those without a history and ``history`` those with one, of which
``history_view`` is what a node knows. ``presence`` has a log of its own.
"""

try:
    import confluent_kafka  # noqa: F401  # an extra; before the modules that take it for granted
except ImportError as exc:
    raise ImportError("the Kafka backplane needs confluent-kafka; pip install 'trioroom[kafka]'") from exc

from trioroom.backplane.kafka.backplane import KafkaBackplane, open_kafka
from trioroom.backplane.kafka.settings import KafkaSettings

__all__ = ["KafkaBackplane", "KafkaSettings", "open_kafka"]
