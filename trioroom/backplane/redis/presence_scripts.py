"""The scripts behind presence, each one step at the server.

KEYS[1] of all but `RENEW` is the table of a room: a hash with a field ``SEAT/USER`` for each row, and ``v``, the number
of its changes, which travels with each of them. ARGV[1] is PUBLISH or SPUBLISH, ARGV[2] the table's channel.
"""

from __future__ import annotations

from typing import Final

from trioroom.backplane.redis.scripts import Script

LASTING: Final = 86_400_000
"""Milliseconds that a table is kept after its last change or look: rows that nobody is there to remove go with it."""

# The number of the next change. If somebody has made of ``v`` what does not count it begins anew, and all who follow
# read the table; what HINCRBY raises for another reason, HSET raises too.
_NEXT = """
local function next_version()
  local version = redis.pcall('HINCRBY', KEYS[1], 'v', 1)
  if type(version) == 'number' and version > 0 and version < 1e15 then return version end
  redis.call('HSET', KEYS[1], 'v', 1)
  return 1
end
"""

# ARGV[3] is what to publish behind the version; ARGV[4] how many rows are put: field and value of each follow, and then
# the fields that are removed.
WRITE: Final = Script(f"""{_NEXT}
local version = next_version()
local puts = 2 * tonumber(ARGV[4])
if puts > 0 then redis.call('HSET', KEYS[1], unpack(ARGV, 5, 4 + puts)) end
if #ARGV > 4 + puts then redis.call('HDEL', KEYS[1], unpack(ARGV, 5 + puts)) end
redis.call('PEXPIRE', KEYS[1], {LASTING})
redis.call(ARGV[1], ARGV[2], string.format('%d', version) .. ':' .. ARGV[3])
return version
""")

# ARGV[3] is how the fields begin that have to go: ``SEAT/``, or ``NODE.`` for all seats of a node. Each seat that had
# rows is told once, as ``-SEAT``; where there are none nothing happens, so that any number of nodes may do this.
REMOVE: Final = Script(
    _NEXT
    + """
local seats, found = {}, {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local slash = string.find(field, '/', 1, true)
  if slash and string.sub(field, 1, #ARGV[3]) == ARGV[3] then
    local seat = string.sub(field, 1, slash - 1)
    if not seats[seat] then
      seats[seat] = {}
      found[#found + 1] = seat
    end
    table.insert(seats[seat], field)
  end
end
for _, seat in ipairs(found) do
  local version, fields = next_version(), seats[seat]
  for first = 1, #fields, 1000 do
    redis.call('HDEL', KEYS[1], unpack(fields, first, math.min(first + 999, #fields)))
  end
  redis.call(ARGV[1], ARGV[2], string.format('%d', version) .. ':-' .. seat)
end
return #found
"""
)

# Returns fields and values, ``v`` among them unless there has never been a change.
READ: Final = Script(f"""
redis.call('PEXPIRE', KEYS[1], {LASTING})
return redis.call('HGETALL', KEYS[1])
""")

# KEYS[1] is the set of nodes by the server's time in ms at which their leases end; ARGV[1] our node, ARGV[2] the lease
# in ms, ARGV[3] is 1 if we are to have one already. Returns nil if that has ended, else all nodes that live and for how
# many ms yet.
RENEW: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[3] == '1' and ends <= now then return false end
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for index = 2, #nodes, 2 do nodes[index] = math.min(math.floor(nodes[index] - now), 1e15) end
return nodes
""")
