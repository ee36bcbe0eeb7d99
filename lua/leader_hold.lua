-- Be the leader of a work, go on being it, or let another be it.
-- KEYS[1] string who leads, with a time to live
-- ARGV[1] string the candidate
-- ARGV[2] ms     for how long; 0 lets go
-- Replies: {'ok', 1 if the candidate leads, else 0}
-- Events: none
-- Cost: 3 commands; works at maxmemory once held
local leader_key = KEYS[1]
local candidate, hold_ms = ARGV[1], tonumber(ARGV[2])

local leader = redis.call('GET', leader_key)
-- What ends later than anybody grants was written by another clock, which was ahead of this one. It counts for nothing.
local is_others = leader and leader ~= candidate
if is_others and (hold_ms == 0 or redis.call('PTTL', leader_key) <= hold_ms) then return { 'ok', 0 } end
if hold_ms == 0 then
  redis.call('DEL', leader_key)
  return { 'ok', 0 }
end
if redis.call('PEXPIRE', leader_key, hold_ms) == 0 or is_others then
  redis.call('SET', leader_key, candidate, 'PX', hold_ms)
end
return { 'ok', 1 }
