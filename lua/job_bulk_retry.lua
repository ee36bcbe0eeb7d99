-- Bulk retry: an operator lets many jobs run again that are dead or killed. This is one step, oldest created first.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] string 'dead' or 'killed'
-- ARGV[2] int    the creation counter to go on from, 0 for the first step
-- ARGV[3] int    jobs to look at, at most
-- ARGV[4] int    jobs to let run again, at most
-- ARGV[5] string only jobs of this name, or ''
-- ARGV[6] ms     only jobs created then or later
-- ARGV[7] ms     only jobs created before
-- Replies: {'ok', jobs that run again, the creation counter to go on from or false at the end} | {'no_space'}
-- Events: requeued
-- Cost: 2 commands a job looked at, about 14 a job that runs again, and 25 in all; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: job
-- include: retry
-- include: gathering
local space_key = KEYS[1]
local status, position = ARGV[1], ARGV[2]
local looks, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local name, from, till = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local space = space_of(space_key)
local now = now_ms()

pass_maxmemory(space)
return gathering(space, function()
  if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end

  local function wanted(job)
    if not job or job.status ~= status or (name ~= '' and job.name ~= name) then return false end
    local created = tonumber(redis.call('HGET', job.key, 'createdAt'))
    return created >= from and created < till
  end

  local retried, last = 0, false
  local found = redis.call('ZRANGEBYSCORE', space .. 'jobs:' .. status, '(' .. position, '+inf', 'WITHSCORES', 'LIMIT', 0,
    looks)
  for i = 1, #found, 2 do
    local id = found[i]
    local job = read_job(space, id)
    last = found[i + 1]
    if wanted(job) then
      retry(space, id, job, now)
      retried = retried + 1
      if retried == most then return { 'ok', retried, last } end
    end
  end
  return { 'ok', retried, #found == looks * 2 and last }
end)
