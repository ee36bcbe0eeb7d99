-- The secret that all processes share: the one that is kept, or else the one that is offered, from now on.
-- KEYS[1] string jw:secret
-- ARGV[1] string a fresh secret
-- Replies: {'ok', the secret}
-- Events: none
-- Cost: 1 command, 3 the first time; works at maxmemory
local secret_key = KEYS[1]
local fresh = ARGV[1]

local kept = redis.call('GET', secret_key)
if kept then return { 'ok', kept } end
redis.call('DEL', secret_key)
redis.call('SET', secret_key, fresh)
return { 'ok', fresh }
