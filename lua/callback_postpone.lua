-- Give taken callbacks back untried, for later: their host is busy or does not answer.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1..]      per callback three: id, end of the lease under which it was taken (ms), from now to the next try (ms)
-- Replies: {'ok', earliest of the moments in ms, or false}
-- Events: none
-- Cost: 2 commands a callback
-- include: space_prefix
-- include: clock
local space = space_of(KEYS[1])
local now = now_ms()

local earliest = false
for i = 1, #ARGV, 3 do
  local id, lease_end, due = ARGV[i], tonumber(ARGV[i + 1]), now + tonumber(ARGV[i + 2])
  local score = redis.call('ZSCORE', space .. 'callbacks', id)
  if score and tonumber(score) == lease_end then
    redis.call('ZADD', space .. 'callbacks', due, id)
    if not earliest or due < earliest then earliest = due end
  end
end
return { 'ok', earliest }
