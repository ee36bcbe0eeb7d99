-- All of a job's log. For 60 s a tombstone keeps a late append from beginning it anew.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] string jw:{J}:log:gone
-- KEYS[5] none   jw:{J}:moving, which never exists
-- Replies: {'ok'}
-- Events: none
-- Cost: 2 commands; what is freed is freed in the background; works at maxmemory
local log, blocks, meta, gone = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

redis.call('UNLINK', log, blocks, meta)
redis.call('SET', gone, 1, 'EX', 60)
return { 'ok' }
