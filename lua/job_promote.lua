-- Jobs whose time has come: scheduled -> pending, at the back of the queue.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] int    jobs at most
-- Replies: {'ok', jobs looked at}
-- Events: pending
-- Cost: about 10 commands a job and 20 in all; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: job
-- include: make_pending
-- include: gathering
-- include: gathered
local space = space_of(KEYS[1])
local most = tonumber(ARGV[1])
local now = now_ms()

pass_maxmemory(space)
return gathering(space, function()
  local due = redis.call('ZRANGEBYSCORE', space .. 'scheduled', '-inf', now, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    drop_entry(space, 'scheduled', id)
    local job = read_job(space, id)
    if job and job.status == 'scheduled' then
      make_pending(space, id, job, 'pending', 'null', now, 'deliveries', 0)
      if job.attempt > 0 or redis.call('HEXISTS', job.key, 'released') == 1 then
        redis.call('HDEL', job.key, 'scheduledFor')
      end
    end
  end
  return { 'ok', #due }
end)
