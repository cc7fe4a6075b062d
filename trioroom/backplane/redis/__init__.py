"""Room traffic through Redis Pub/Sub, or Valkey, or what else speaks the protocol.

``location`` says where and how (redis-py reads the URL), ``resp`` is one connection, ``publisher`` and ``subscriber``
are the two directions, ``link`` supervises both to one server, ``topology`` and ``cluster`` know which server it is.
``history`` keeps publications there, by ``scripts``.
"""

from trioroom.backplane.redis.backplane import RedisBackplane, open_redis
from trioroom.backplane.redis.settings import RedisSettings

__all__ = ["RedisBackplane", "RedisSettings", "open_redis"]
