-- An ended job's log lives so long, should nobody delete it.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- ARGV[1] ms     from now
-- Replies: {'ok'}
-- Events: none
-- Cost: 3 commands; works at maxmemory
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]
local ttl_ms = tonumber(ARGV[1])

for _, key in ipairs({ log, blocks, meta }) do redis.call('PEXPIRE', key, ttl_ms) end
return { 'ok' }
