"""What a URL of Kafka may say."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from trioroom.backplane.kafka import KafkaSettings
from trioroom.backplane.kafka.location import parse_location

PLAIN = {"security.protocol": "PLAINTEXT"}
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "endpoints"),
    [
        ("kafka://", "127.0.0.1:9092"),
        ("KAFKA://Host/", "host:9092"),
        ("kafka://a,b:1,[::2]:3", "a:9092,b:1,[::2]:3"),
    ],
)
def test_url_names_some_brokers(url: str, endpoints: str) -> None:
    location = parse_location(url)
    assert (str(location), location.access, location.settings) == (endpoints, PLAIN, KafkaSettings())


@pytest.mark.parametrize(
    ("url", "protocol", "mechanism"),
    [
        ("kafka://m%40e:p%2Fw@host", "SASL_PLAINTEXT", "PLAIN"),
        ("kafka+tls://m%40e:p%2Fw@host", "SASL_SSL", "PLAIN"),
        ("kafka+tls://m%40e:p%2Fw@host?sasl_mechanism=scram-sha-512", "SASL_SSL", "SCRAM-SHA-512"),
    ],
)
def test_user_and_password_are_for_sasl(url: str, protocol: str, mechanism: str) -> None:
    access = parse_location(url).access
    assert (access["security.protocol"], access["sasl.mechanism"]) == (protocol, mechanism)
    assert (access["sasl.username"], access["sasl.password"]) == ("m@e", "p/w")


def test_tls_verifies_and_takes_authorities_from_a_folder_too() -> None:
    assert parse_location("kafka+tls://h?ssl_ca_path=/folder").access["ssl.ca.location"] == "/folder"

    access = parse_location("kafka+tls://h?ssl_ca_certs=/ca&ssl_certfile=/cert&ssl_keyfile=/key&ssl_password=x").access
    assert access == {
        "security.protocol": "SSL",
        "ssl.ca.location": "/ca",
        "ssl.certificate.location": "/cert",
        "ssl.key.location": "/key",
        "ssl.key.password": "x",
        "enable.ssl.certificate.verification": "true",
        "ssl.endpoint.identification.algorithm": "https",
    }


@pytest.mark.parametrize(
    ("query", "verified", "named"),
    [
        ("ssl_cert_reqs=required", "true", "https"),
        ("ssl_cert_reqs=none", "false", "none"),
        ("ssl_check_hostname=false", "true", "none"),
        ("ssl_check_hostname=true&ssl_cert_reqs=none", "false", "none"),
    ],
)
def test_tls_verifies_as_much_as_is_asked_for(query: str, verified: str, named: str) -> None:
    access = parse_location(f"kafka+tls://h?{query}").access
    assert access["enable.ssl.certificate.verification"] == verified
    assert access["ssl.endpoint.identification.algorithm"] == named


def test_settings_in_the_query_go_before_those_of_the_caller() -> None:
    mine = KafkaSettings(timeout=9, linger=0.5)
    location = parse_location("kafka://h?timeout=1.5&prefix=shop&partitions=3", mine)
    assert location.settings == KafkaSettings(timeout=1.5, linger=0.5, prefix="shop", partitions=3)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "this is no URL of Kafka: it has no ://; write kafka://host:9092, or kafka+tls:// for TLS"),
        ("host:9092", "this is no URL of Kafka: it has no ://"),
        ("kafka:host", "this is no URL of Kafka: it has no ://"),
        ("kafkas://host", "'kafkas' is no scheme"),
        ("kafka://[::1", "this is no URL"),
        ("kafka://host/topic", "has no path; the topic is named by ?prefix="),
        ("kafka://host:x", "what begins with 'host' is no host and port; write host:9092"),
        ("kafka://host:65536", "what begins with 'host' is no host and port"),
        ("kafka://user@host", "SASL needs user and password"),
        ("kafka://host?sasl_mechanism=PLAIN", "sasl_mechanism is for user and password"),
        ("kafka://u:p@host?sasl_mechanism=GSSAPI", "is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ("kafka://host?colour=red", "option 'colour' is not known; there are connect_timeout, "),
        ("kafka://host?ssl_cert_reqs=none", "option 'ssl_cert_reqs' is for TLS; write kafka+tls://"),
        ("kafka+tls://host?ssl_cert_reqs=optional", "ssl_cert_reqs='optional' is neither none nor required"),
        ("kafka+tls://host?ssl_check_hostname=maybe", "ssl_check_hostname='maybe' is neither true nor false"),
        ("kafka://host?timeout=soon", "timeout='soon' is no number"),
        ("kafka://host?timeout=0", "'timeout' must be > 0"),
        ("kafka://host#x", "the URL has a # or @ where none can stand"),
    ],
)
def test_what_is_no_such_url_is_refused_with_advice(url: str, text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the text is compared below
        parse_location(url)
    assert text in str(refused.value)


KINDS = st.sampled_from(["kafka://", "kafka+tls://"])
