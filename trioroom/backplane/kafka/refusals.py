"""What the broker's errors mean to who writes: try again, or mend something first."""

from __future__ import annotations

import confluent_kafka

from trioroom.backplane.kafka.client import KafkaError
from trioroom.errors import BackplaneError, BackplaneUnavailable

_E = confluent_kafka.KafkaError
_TOO_LARGE = {_E.MSG_SIZE_TOO_LARGE, _E.INVALID_MSG_SIZE, _E.RECORD_LIST_TOO_LARGE}
_NOT_ALLOWED = {
    _E.TOPIC_AUTHORIZATION_FAILED,
    _E.CLUSTER_AUTHORIZATION_FAILED,
    _E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_REFUSED = {_E.POLICY_VIOLATION, _E.INVALID_RECORD, _E.INVALID_TIMESTAMP, _E.UNSUPPORTED_FOR_MESSAGE_FORMAT}
SPENT = {
    _E.INVALID_PRODUCER_EPOCH, _E.PRODUCER_FENCED, _E.UNKNOWN_PRODUCER_ID, _E.INVALID_PRODUCER_ID_MAPPING,
    _E.OUT_OF_ORDER_SEQUENCE_NUMBER, _E._FENCED, _E._FATAL,
}  # fmt: skip
"""After these a client's identity as a writer is worth nothing; a new client gets another one."""
SPENT_ONCE_UP = {_E._MSG_TIMED_OUT}
"""So too with these of a client that has been up: it would number what is left anew, and send again what may be in the
log by its old numbers. Before that it waits to be let in, or for partitions that have just been made."""


def refusal(error: KafkaError | None, topic: str) -> BackplaneError:
    """To raise for a record that was not confirmed; None is a client's queue that is full."""
    if error is None:
        return BackplaneUnavailable("the client's queue to the broker is full; retry later")
    code, text = error.code(), error.str()
    if code in _TOO_LARGE:
        return BackplaneError(
            f"the broker refused a publication as too large ({text}); raise max.message.bytes of topic {topic}, or "
            "lower max_publication_bytes"
        )
    if code in _NOT_ALLOWED:
        return BackplaneError(f"the broker refused a publication ({text}); allow this user Write on topic {topic}")
    if code in _REFUSED:
        return BackplaneError(f"the broker refused a publication: {text}")
    return BackplaneUnavailable(
        f"the broker has not confirmed a publication ({text}), which may have gone out or not; retry later"
    )
