-- A sealed block takes the place of the oldest record batches of a job's log. Done again, or by two at once, or after
-- the log was cut or removed, it changes nothing.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- ARGV[1] int    seq of the block's first line
-- ARGV[2] int    seq of its last line, the last of a record batch
-- ARGV[3] bytes  of its lines as they were stored
-- ARGV[4] string its record in the index, as include/log_index.lua has it
-- ARGV[5] string the block, as app/logs/blocks.py has it
-- ARGV[6] int    lines up to which those that a consumer group has still to read are spared
-- ARGV[7] bytes  of lines up to which they are spared
-- Replies: {'ok', 1} | {'ok', 0} when these lines are not the oldest any more | {'spared'}
-- Events: none
-- Cost: about 10 commands, two for each consumer group; the batches are freed first: works at maxmemory
-- include: log_groups
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]
local first, last, stored = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local record, block = ARGV[4], ARGV[5]
local spare_lines, spare_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])

local field = redis.call('HMGET', meta, 'lastSeq', 'sealed', 'hot', 'index')
local newest, sealed, hot = tonumber(field[1] or 0), tonumber(field[2] or 0), tonumber(field[3] or 0)
if not field[1] or sealed ~= first - 1 then return { 'ok', 0 } end
local edge = string.format('%d-0', last)
if #redis.call('XRANGE', log, edge, edge) == 0 then return { 'ok', 0 } end
if newest - sealed <= spare_lines and hot <= spare_bytes and unread(log, last) then return { 'spared' } end

-- Without lines the stream goes as a whole, but its consumer groups would go with it.
if last == newest and #redis.call('XINFO', 'GROUPS', log) == 0 then
  redis.call('DEL', log)
else
  redis.call('XTRIM', log, 'MINID', string.format('%d-0', last + 1))
end
redis.call('RPUSH', blocks, block)
redis.call('HSET', meta, 'sealed', last, 'hot', hot - stored, 'index', (field[4] or '') .. record)
local ttl_ms = redis.call('PTTL', meta)
if ttl_ms > 0 then redis.call('PEXPIRE', blocks, ttl_ms) end
return { 'ok', 1 }
