-- Take callbacks that are due: each is the caller's until a lease ends, after which it is due again.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] int    callbacks at most
-- ARGV[2] ms     length of the lease
-- Replies: {'ok', end of the lease in ms, next due moment in ms or false, {id, url}, ...}
-- Events: none
-- Cost: 3 commands, and 3 a callback
-- include: space_prefix
-- include: clock
-- include: callback_outbox
local space = space_of(KEYS[1])
local most, lease_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()

local lease_end = now + lease_ms
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', space .. 'callbacks', '-inf', now, 'LIMIT', 0, most)) do
  local key = space .. 'job:' .. id
  local url = redis.call('HGET', key, 'callbackUrl')
  local try = try_of(key)
  if not url then
    redis.call('ZREM', space .. 'callbacks', id)
  elseif try and try.till > now then
    redis.call('ZADD', space .. 'callbacks', try.till, id)
  else
    redis.call('ZADD', space .. 'callbacks', lease_end, id)
    taken[#taken + 1] = { id, url }
  end
end
local head = redis.call('ZRANGE', space .. 'callbacks', 0, 0, 'WITHSCORES')
return { 'ok', lease_end, head[2] or false, unpack(taken) }
