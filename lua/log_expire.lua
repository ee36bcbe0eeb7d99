-- How long a job's log lives on, should nobody delete it; or that it does, when the job runs again.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- ARGV[1] ms     from now; 0 for ever
-- Replies: {'ok'}
-- Events: none
-- Cost: 4 commands; works at maxmemory
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]
local ttl_ms = tonumber(ARGV[1])

for _, key in ipairs({ log, blocks, meta }) do
  if ttl_ms == 0 then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, ttl_ms)
  end
end
return { 'ok' }
