-- The hash of a new space.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] string its name
-- ARGV[2] string the id of this instance of its feed
-- Replies: {'ok', createdAt}
-- Events: none
-- Cost: 2 commands
-- include: clock
local space_key = KEYS[1]
local name, instance = ARGV[1], ARGV[2]
local now = now_ms()

redis.call('HSET', space_key, 'name', name, 'createdAt', now, 'instance', instance, 'seq', 0)
return { 'ok', now }
