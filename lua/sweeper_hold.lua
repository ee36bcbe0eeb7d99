-- Be the one sweeper that works, go on being it, or let another be it.
-- KEYS[1] string who works, with a time to live
-- ARGV[1] string the caller
-- ARGV[2] ms     for how long; 0 lets go
-- Replies: {'ok', 1 if the caller works, else 0}
-- Events: none
-- Cost: 2 commands; works at maxmemory once held
local holder_key = KEYS[1]
local caller, hold_ms = ARGV[1], tonumber(ARGV[2])

local holder = redis.call('GET', holder_key)
if holder and holder ~= caller then return { 'ok', 0 } end
if hold_ms == 0 then
  redis.call('DEL', holder_key)
  return { 'ok', 0 }
end
if redis.call('PEXPIRE', holder_key, hold_ms) == 0 then redis.call('SET', holder_key, caller, 'PX', hold_ms) end
return { 'ok', 1 }
