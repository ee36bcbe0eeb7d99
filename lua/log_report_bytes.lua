-- How much some logs of a space hold now, as the processes that appended to them tell it; and which to cut, if that is
-- too much.
-- KEYS[1] zset   jw:{S}:logs
-- KEYS[2] hash   jw:{S}:log_bytes
-- KEYS[3] none   jw:{S}:moving, which never exists
-- ARGV[1] bytes  that the logs of the space may hold, before compression
-- ARGV[2] int    logs to name at most
-- ARGV[3] 0|1    whether lines were appended just now
-- ARGV[4..]      per log two: the job, and the bytes that it holds, 0 when it is gone
-- Replies: {'ok', bytes in all, {job, ...}}: without excess none, else those that have rested longest
-- Events: none
-- Cost: 3 commands a log, and 3
-- include: clock
local logs, held = KEYS[1], KEYS[2]
local bound, most, fresh = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local now = now_ms()

local before = tonumber(redis.call('HGET', held, 'total') or 0)
local total = before
for i = 4, #ARGV, 2 do
  local job, bytes = ARGV[i], tonumber(ARGV[i + 1])
  total = total - tonumber(redis.call('HGET', held, job) or 0) + bytes
  if bytes == 0 then
    redis.call('HDEL', held, job)
    redis.call('ZREM', logs, job)
  else
    redis.call('HSET', held, job, bytes)
    if fresh or not redis.call('ZSCORE', logs, job) then redis.call('ZADD', logs, now, job) end
  end
end
if total ~= before then redis.call('HSET', held, 'total', total) end
if redis.call('EXISTS', logs) == 0 then redis.call('DEL', held) end
return { 'ok', total, total > bound and redis.call('ZRANGE', logs, 0, most - 1) or {} }
