-- Act on leases that ended: delivered -> pending (dead after 100 deliveries in a row without an ack), running -> as a
-- failed attempt. A lease that still lives keeps its job, whatever the deadline says.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] int    jobs at most
-- ARGV[2] int    a seed for the jitter of retry delays
-- ARGV[3] ms     how long an ended job's keys live on, should nobody sweep
-- Replies: {'ok', jobs looked at, moment of the callbacks that became due or false, jobs back to pending without a retry,
--          jobs that got a retry, jobs that are dead now}
-- Events: delivery_timeout | retried | dead, the latter two with reason "timeout"
-- Cost: about 25 commands a job; works at maxmemory
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: callback
-- include: finish
-- include: attempt
local DELIVERIES_MOST = 100
local space_key = KEYS[1]
local most, seed, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local space = string.sub(space_key, 1, -6)
local now = now_ms()

-- Returns when the callback of a job that died of it is due, or false.
local function expire(id, job)
  if job.status == 'running' then
    local problem = '"Execution timed out after ' .. job.timeout_ms / 1000 .. ' s"'
    return fail_attempt(space, id, job, problem, ',"reason":"timeout"', true, math.random(), now, keep_ms)
  end
  if job.deliveries >= DELIVERIES_MOST then
    local problem = '"Delivered ' .. job.deliveries .. ' times in a row without an ack"'
    return fail_attempt(space, id, job, problem, ',"reason":"timeout"', false, 0, now, keep_ms)
  end
  release(space, id)
  requeue(space, id, job, 'delivery_timeout', 'null', now, { 'deliveries', job.deliveries })
  return false
end

math.randomseed(seed)
local callback_due, again, retried, dead = false, 0, 0, 0
local due = redis.call('ZRANGEBYSCORE', space .. 'deadlines', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(due) do
  local left_ms = redis.call('PTTL', space .. 'lease:' .. id)
  local job = read_job(space .. 'job:' .. id)
  if left_ms > 0 then
    -- A write that needs no memory, so that the next one passes at maxmemory, too.
    redis.call('PEXPIRE', space .. 'lease:' .. id, left_ms)
    redis.call('ZADD', space .. 'deadlines', now + left_ms, id)
  elseif job and (job.status == 'running' or job.status == 'delivered') then
    local was_running = job.status == 'running'
    callback_due = expire(id, job) or callback_due
    if job.status == 'dead' then
      dead = dead + 1
    elseif was_running then
      retried = retried + 1
    else
      again = again + 1
    end
  else
    release(space, id)
  end
end
return { 'ok', #due, callback_due, again, retried, dead }
