"""The scripts behind `trioroom.backplane.redis.history.RedisHistory`, each one step at the server.

A server that is out of memory refuses the first command that takes some, but none once the script has written: so what
takes memory comes first, and what is refused has changed nothing.

All but the last see KEYS[1], the hash of what is known of the room: e, the epoch; s, the offset of the last
publication; r, the incarnation of the server that last wrote; pe and po, the epoch before and the offset up to which
nothing differs; n and l, how many publications are kept and for how many milliseconds. And KEYS[2], the stream of those
that are held, whose ids are the offsets: without a hole, and s is the last, so that its length says where it starts.
"""

from __future__ import annotations

from typing import Final

from trioroom.backplane.redis.scripts import Script

# Before each: ARGV[1] is the server's incarnation, ARGV[2] a new epoch, if one is needed, ARGV[3] how long in ms epoch
# and offset are to last, ARGV[4] and [5] the room's n and l, or empty.
_ENTER: Final = """
local meta, stream = KEYS[1], KEYS[2]
local incarnation, fresh, lasting, size, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local known = redis.call('HMGET', meta, 'e', 's', 'r', 'pe', 'po', 'n', 'l')
local epoch, last, previous, shared = known[1], tonumber(known[2] or 0), known[4], tonumber(known[5] or 0)

local function enter()
  if not epoch then
    epoch = fresh
    redis.call('HSET', meta, 'e', epoch, 's', 0, 'r', incarnation)
    redis.call('DEL', stream)
  elseif incarnation ~= '' and known[3] ~= incarnation then  -- restarted or failed over: what is here is all we have
    previous, shared, epoch = epoch, last, fresh
    redis.call('HSET', meta, 'e', epoch, 'r', incarnation, 'pe', previous, 'po', known[2])
  end
  if known[6] ~= size or known[7] ~= ttl then
    redis.call('HSET', meta, 'n', size, 'l', ttl)
  end
end

local function renew()
  redis.call('PEXPIRE', meta, string.format('%d', math.max(lasting, ttl)))  -- never before what it is of
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# KEYS[3] is where the publication id is remembered, if there is one, ARGV[6] for how many ms. ARGV[7] is PUBLISH or
# SPUBLISH, ARGV[8] the channel, ARGV[9] the payload. Returns epoch and offset, or nil.
PUBLISH: Final = Script(
    _ENTER
    + """
if KEYS[3] then
  local position = redis.call('GET', KEYS[3])
  if position then
    local colon = string.find(position, ':', 1, true)
    return {string.sub(position, 1, colon - 1), tonumber(string.sub(position, colon + 1))}
  end
end
if size == '' then
  if not known[6] then return false end
  size, ttl = known[6], known[7]
end
enter()
local offset = string.format('%d', last + 1)
redis.call('XADD', stream, 'MAXLEN', '=', size, offset .. '-0', 't', string.format('%d', now()), 'p', ARGV[9])
redis.call('HSET', meta, 's', offset)
renew()
redis.call('PEXPIRE', stream, ttl)
local position = epoch .. ':' .. offset
redis.call(ARGV[7], ARGV[8], position .. ':' .. ARGV[9])
if KEYS[3] then redis.call('SET', KEYS[3], position, 'PX', ARGV[6]) end
return {epoch, last + 1}
"""
)

# ARGV[6] and [7] are epoch and offset of what the node has seen, or empty; ARGV[8] is 'after' or 'before', ARGV[9] the
# offset, empty for none, ARGV[10] how many are wanted, ARGV[11] how many bytes. Returns epoch, offset of the last,
# epoch before or nil, its offset, start, and then for each: offset, age in ms, payload; in the direction asked for.
READ: Final = Script(
    _ENTER
    + """
enter()
renew()
local seen_epoch, seen = ARGV[6], tonumber(ARGV[7])
if seen and ((seen_epoch == epoch and seen > last) or (seen_epoch == previous and seen > shared)) then
  epoch, previous = fresh, false  -- what it has seen is gone, and who knows what else
  redis.call('HSET', meta, 'e', epoch)
  redis.call('HDEL', meta, 'pe', 'po')
  redis.call('DEL', stream)
end

local time, oldest = now(), last - redis.call('XLEN', stream)
local start, fine = oldest, last  -- bisect: up to start all are too old, and none is behind fine
while start < fine do
  local middle = math.ceil((start + fine) / 2)
  local id = string.format('%d', middle)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if time - entry[2][2] >= tonumber(ttl) then start = middle else fine = middle - 1 end
end
if start > oldest then redis.call('XTRIM', stream, 'MAXLEN', '=', string.format('%d', last - start)) end

local reply = {epoch, last, previous, shared, start}
local limit, room, forward = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[8] == 'after'
if ARGV[9] == '' then return reply end
local from = forward and math.max(tonumber(ARGV[9]), start) + 1 or math.min(tonumber(ARGV[9]) - 1, last)
while limit > 0 and from > start and from <= last do
  local first, count = string.format('%d', from), math.min(limit, 16)  -- not all at once: they may be large
  local entries
  if forward then entries = redis.call('XRANGE', stream, first, '+', 'COUNT', count)
  else entries = redis.call('XREVRANGE', stream, first, '-', 'COUNT', count) end
  for _, entry in ipairs(entries) do
    room = room - #entry[2][4]
    if room < 0 and #reply > 5 then return reply end
    reply[#reply + 1] = from
    reply[#reply + 1] = math.max(time - entry[2][2], 0)
    reply[#reply + 1] = entry[2][4]
    from = from + (forward and 1 or -1)
  end
  limit = limit - count
end
return reply
"""
)

# For rooms without a history. KEYS[1] is named as their channel, so that it has its slot, and is the set of
# publication ids with the time when each is forgotten. ARGV: the id, for how many ms to remember it, PUBLISH or
# SPUBLISH, the payload.
PUBLISH_ONCE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local forgotten = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not forgotten or tonumber(forgotten) <= now then
  redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  local reply = redis.pcall(ARGV[3], KEYS[1], ARGV[4])
  if type(reply) == 'table' and reply.err then redis.call('ZREM', KEYS[1], ARGV[1]) end
  return reply
end
return 0
""")
