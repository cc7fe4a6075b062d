"""What is the same in the URLs of all brokers; the rest is with each of them."""

from __future__ import annotations

import pytest

from trioroom.backplane.kafka.settings import KafkaSettings
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.url import Endpoint, split_hosts, take_settings


def test_endpoint_reads_as_it_is_written() -> None:
    assert str(Endpoint("host", 1)) == "host:1"
    assert str(Endpoint("::1", 1)) == "[::1]:1"


@pytest.mark.parametrize(
    ("settings", "options", "text"),
    [
        (NatsSettings(), {"replicas": "9"}, "'replicas' must be in (1, 2, 3, 4, 5) (got 9)"),
        (NatsSettings(), {"storage": "disk"}, "'storage' must be in ('file', 'memory') (got 'disk')"),
        (NatsSettings(), {"timeout": "0"}, "'timeout' must be > 0: 0.0"),
        (KafkaSettings(), {"retention": "1"}, "retention=1 is shorter than publication_id_ttl="),
    ],
)
def test_setting_that_is_refused_is_told_in_one_sentence(
    settings: NatsSettings | KafkaSettings, options: dict[str, str], text: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the text is compared below
        take_settings(options, settings)
    assert str(refused.value).startswith(text)
    assert "validator" not in str(refused.value)


def test_host_that_is_left_out_between_others_is_not_taken_for_this_machine() -> None:
    assert split_hosts("") == [""]
    assert split_hosts("a,b") == ["a", "b"]
    for text in (",", "a,", ",a", "a,,b"):
        with pytest.raises(ValueError, match="a comma too many between hosts"):
            split_hosts(text)
