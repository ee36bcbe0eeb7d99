-- Be the one sweeper that works, or go on being it.
-- KEYS[1] string who works, with a time to live
-- ARGV[1] string the caller
-- ARGV[2] ms     for how long
-- Replies: {'ok', 1 if the caller works, else 0}
-- Events: none
-- Cost: 2 commands; works at maxmemory once held
local holder_key = KEYS[1]
local caller, hold_ms = ARGV[1], ARGV[2]

local holder = redis.call('GET', holder_key)
if holder == caller then
  redis.call('PEXPIRE', holder_key, hold_ms)
  return { 'ok', 1 }
end
if holder then return { 'ok', 0 } end
redis.call('SET', holder_key, caller, 'PX', hold_ms)
return { 'ok', 1 }
