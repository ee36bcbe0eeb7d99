-- Everything, in their space, of the jobs that ended longest ago and have been kept long enough. Their logs go after:
-- see app/jobs/deletion_and_retention.py.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] int    jobs at most
-- ARGV[2] ms     how long an ended job is kept; '' takes any job, whatever its status, for its space goes
-- Replies: {'ok', id, ...}
-- Events: none
-- Cost: about 6 commands a job and 20 in all; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: job
-- include: remove
-- include: gathering
local space = space_of(KEYS[1])
local most, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()

local ids
if keep_ms then
  ids = redis.call('ZRANGEBYSCORE', space .. 'ended', '-inf', now - keep_ms, 'LIMIT', 0, most)
else
  ids = redis.call('ZRANGE', space .. 'jobs', 0, most - 1)
end
gathering(space, function()
  for _, id in ipairs(ids) do remove(space, id, read_job(space, id), now) end
end)
settle(space)
return { 'ok', unpack(ids) }
