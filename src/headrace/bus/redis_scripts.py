"""The scripts that write a lane's log on Redis, each in one step: claim the lane, append, restart, and read its state.

Keys of a lane: `meta` is a hash with the writer's token `t`, the log's epoch `e`, the number of its last entry `s`, the
part of the epoch in which topics begin `n`, the run id `r` of the server as the writer last saw it, and the last claim
`c`. `tops` is a hash from topics to their newest places. `log` is a stream with an entry `epoch-number` for each batch.
"""

from typing import Final

from headrace.redis.connection import Script

APPENDED: Final = 1
KNOWN: Final = 0
OTHER_TOKEN: Final = -1
NOT_NEXT: Final = -2

_SET_TOPS: Final = """
local function set_tops(from, to)
  for i = from, to, 2000 do redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 1999, to))) end
end
"""

STATE: Final = Script(
    """
local m = redis.call('HMGET', KEYS[1], 't', 'e', 's', 'n', 'r')
return {m[1], m[2], m[3], m[4], m[5], redis.call('HGETALL', KEYS[2])}
"""
)
"""Return token, epoch, number, part, run id (each may be nil) and the tops."""

CLAIM: Final = Script(
    """
local m = redis.call('HMGET', KEYS[1], 't', 'e', 's', 'n', 'r', 'c')
local stored, token = tonumber(m[1] or '0'), tonumber(ARGV[1])
if ARGV[2] == '1' then
  if stored > token then return {-1, stored} end
  if m[2] then redis.call('HSET', KEYS[1], 't', ARGV[1], 'r', ARGV[3]) end
  return {token, m[2] or false, m[3] or false}
end
local again = m[6] and m[6] == ARGV[5]
if again then token = stored
elseif token < 0 then token = stored + 1
elseif stored >= token then return {-1, stored} end
if m[2] and m[5] == ARGV[3] then
  redis.call('HSET', KEYS[1], 't', token, 'c', ARGV[5])
  return {token, m[2], m[3], m[4]}
end
local epoch = ARGV[4]
if m[2] and tonumber(m[2]) >= tonumber(epoch) then epoch = string.format('%.0f', tonumber(m[2]) + 1) end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 't', token, 'e', epoch, 's', 0, 'n', 0, 'r', ARGV[3], 'c', ARGV[5])
return {token, epoch, '0', '0'}
"""
)
"""ARGV: token (-1: the next one), 1 for a writer that goes on, the server's run id, the least new epoch, a name that no
other claim has (so that a repeated request is answered as the first one was).

A writer that goes on is answered with what the server has. A new writer continues the log only if this run of the
server is the one that the last writer saw; otherwise entries may be missing, and a new epoch begins.
"""

APPEND: Final = Script(
    _SET_TOPS
    + """
local m = redis.call('HMGET', KEYS[1], 't', 'e', 's')
if m[1] ~= ARGV[1] then return {-1, tonumber(m[1] or '0')} end
local e, s, epoch, seq = tonumber(m[2]), tonumber(m[3]), tonumber(ARGV[2]), tonumber(ARGV[3])
if epoch < e or (epoch == e and seq <= s) then return {0} end
if (epoch == e and seq ~= s + 1) or (epoch > e and seq ~= 1) then return {-2} end
redis.call('XADD', KEYS[3], 'MINID', '~', ARGV[5], ARGV[2] .. '-' .. ARGV[3], 'd', ARGV[6])
if ARGV[7] == '1' then redis.call('DEL', KEYS[2]) end
local last = 8 + 2 * tonumber(ARGV[8])
set_tops(9, last)
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
redis.call('HSET', KEYS[1], 'e', ARGV[2], 's', ARGV[3], 'n', ARGV[4])
return {1}
"""
)
"""ARGV: token, epoch, number, part after the entry, least id kept, entry, 1 if topics begin anew, number of tops, tops,
topics that are forgotten. Nothing is written before XADD, which is what a full server refuses."""

RESTART: Final = Script(
    _SET_TOPS
    + """
local stored = tonumber(redis.call('HGET', KEYS[1], 't') or '0')
if stored > tonumber(ARGV[1]) then return {-1, stored} end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 't', ARGV[1], 'e', ARGV[2], 's', ARGV[3], 'n', ARGV[4], 'r', ARGV[5])
set_tops(6, #ARGV)
return {1}
"""
)
"""ARGV: token, epoch and number of the entry before the next one, part, run id, all tops: the log begins there."""
