"""Rooms over NATS with JetStream (https://docs.nats.io).

``location`` says where and how, ``protocol`` is the wire, ``connection`` one connection, ``requests`` and
``subscriber`` are the two directions, ``link`` supervises both, ``streams`` asks for JetStream's streams. ``relay`` is
the one through which rooms without a history go.
"""

from trioroom.backplane.nats.backplane import NatsBackplane, open_nats
from trioroom.backplane.nats.settings import NatsSettings

__all__ = ["NatsBackplane", "NatsSettings", "open_nats"]
