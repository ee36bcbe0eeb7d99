-- A log has no time to live any more, for its job runs again.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- Replies: {'ok'}
-- Events: none
-- Cost: 3 commands; works at maxmemory
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]

for _, key in ipairs({ log, blocks, meta }) do redis.call('PERSIST', key) end
return { 'ok' }
