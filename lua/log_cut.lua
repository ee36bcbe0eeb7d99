-- The oldest lines of a job's log go, in whole blocks and batches, because its space holds too much.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- ARGV[1] bytes  that shall go, before compression
-- ARGV[2] int    blocks and batches that go at most
-- Replies: {'ok', bytes that went, bytes that are left}
-- Events: none
-- Cost: two commands for each block or batch, and about 3; works at maxmemory
-- include: log_drop
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]
local wanted, most = tonumber(ARGV[1]), tonumber(ARGV[2])

local field = redis.call('HMGET', meta, 'firstSeq', 'bytes', 'sealed', 'hot', 'index')
if not field[1] then return { 'ok', 0, 0 } end
local before = tonumber(field[2])
local kept = { first = tonumber(field[1]), bytes = before, sealed = tonumber(field[3]), hot = tonumber(field[4]) }
kept.index = field[5] or ''
for _ = 1, most do
  if before - kept.bytes >= wanted or not drop_oldest(log, blocks, kept, nil) then break end
end
redis.call('HSET', meta, 'firstSeq', kept.first, 'bytes', kept.bytes, 'sealed', kept.sealed, 'hot', kept.hot,
  'index', kept.index)
return { 'ok', before - kept.bytes, kept.bytes }
