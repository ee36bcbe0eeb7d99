-- Prove that this server runs scripts and takes writes.
-- KEYS[1] string overwritten, gone after ten seconds
-- Replies: {'ok', now in ms}
-- Events: none
-- Cost: 2 commands
-- include: clock
local probe_key = KEYS[1]
local now = now_ms()

redis.call('SET', probe_key, now, 'PX', 10000)
return { 'ok', now }
