"""The scripts that write a lane's log on Redis, each in one step: claim the lane, append, restart, and read its state.

Keys of a lane: `meta` is a hash with the name `w` and token `t` of the writer, the log's epoch `e`, the number of its
last entry `s`, the part of the epoch in which topics begin `n`, and the run id `r` of the server as the writer last saw
it. `tops` is a hash from topics to their newest places. `log` is a stream with an entry `epoch-number` for each batch.

Each claim has a name of its own. A writer was followed by another one if the log has a greater epoch, or the same epoch
and a greater token. Tokens alone do not say so, as they may begin anew on a server that lost everything.
"""

from typing import Final

from headrace.redis.connection import Script

APPENDED: Final = 1
KNOWN: Final = 0
FOLLOWED: Final = -1
NOT_NEXT: Final = -2

_SET_TOPS: Final = """
local function set_tops(from, to)
  for i = from, to, 2000 do redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 1999, to))) end
end
"""

STATE: Final = Script(
    """
local m = redis.call('HMGET', KEYS[1], 'e', 's', 'n')
return {m[1], m[2], m[3], redis.call('HGETALL', KEYS[2])}
"""
)
"""Return epoch, number and part (nil without a log), and the tops."""

_IS_FOLLOWED: Final = """
local m = redis.call('HMGET', KEYS[1], 'w', 't', 'e', 's', 'n', 'r')
local function followed(name, token, epoch)
  if not m[3] or m[1] == name then return false end
  return tonumber(m[3]) > tonumber(epoch) or (m[3] == epoch and tonumber(m[2]) > tonumber(token))
end
"""

CLAIM: Final = Script(
    """
local m = redis.call('HMGET', KEYS[1], 'w', 't', 'e', 's', 'n', 'r')
local stored, token = tonumber(m[2] or '0'), tonumber(ARGV[2])
if m[1] == ARGV[1] then token = stored
elseif token < 0 then token = stored + 1
elseif stored >= token then return {-1, stored} end
if m[3] and m[6] == ARGV[3] then
  redis.call('HSET', KEYS[1], 'w', ARGV[1], 't', token)
  return {token, m[3], m[4], m[5]}
end
local epoch = ARGV[4]
if m[3] and tonumber(m[3]) >= tonumber(epoch) then epoch = string.format('%.0f', tonumber(m[3]) + 1) end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'w', ARGV[1], 't', token, 'e', epoch, 's', 0, 'n', 0, 'r', ARGV[3])
return {token, epoch, '0', '0'}
"""
)
"""ARGV: name, token (-1: the next one), the server's run id, the least new epoch.

A new writer continues the log only if this run of the server is the one that the last writer saw; otherwise entries may
be missing, and a new epoch begins. A repeated request is answered as the first one.
"""

RECLAIM: Final = Script(
    _IS_FOLLOWED
    + """
if followed(ARGV[1], ARGV[2], ARGV[3]) then return {-1, tonumber(m[2])} end
if m[3] then
  redis.call('HSET', KEYS[1], 'w', ARGV[1], 't', ARGV[2], 'r', m[6] == ARGV[4] and ARGV[4] or '')
end
return {1, m[3] or false, m[4] or false}
"""
)
"""ARGV: name, token, the last epoch of this writer that was in the log, the server's run id.

A writer that goes on is answered with what the server has. On another run of the server the run id is then empty, until
`SETTLE` says that the log is whole again.
"""

APPEND: Final = Script(
    _SET_TOPS
    + """
local m = redis.call('HMGET', KEYS[1], 'w', 'e', 's')
if m[1] ~= ARGV[1] then return {-1} end
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
"""ARGV: name, epoch, number, part after the entry, least id kept, entry, 1 if topics begin anew, number of tops, tops,
topics that are forgotten. Nothing is written before XADD, which is what a full server refuses."""

RESTART: Final = Script(
    _SET_TOPS
    + _IS_FOLLOWED
    + """
if followed(ARGV[1], ARGV[2], ARGV[3]) then return {-1, tonumber(m[2])} end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'w', ARGV[1], 't', ARGV[2], 'e', ARGV[4], 's', ARGV[5], 'n', ARGV[6], 'r', '')
set_tops(7, #ARGV)
return {1}
"""
)
"""ARGV: name, token, and epoch as for `RECLAIM`; epoch and number of the entry before the next one, part, all tops.

The log begins there.
"""

SETTLE: Final = Script(
    "if redis.call('HGET', KEYS[1], 'w') == ARGV[1] then redis.call('HSET', KEYS[1], 'r', ARGV[2]) end"
)
"""ARGV: name, run id. The log on this run of the server has all entries that any process may know."""
