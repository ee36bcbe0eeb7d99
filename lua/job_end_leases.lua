-- Act on leases that ended: delivered -> pending (dead after 100 deliveries in a row without an ack), running -> as a
-- failed attempt. A lease that still lives keeps its job, whatever the deadline says. One that ended in an outage, or
-- just after it, before its worker could come back, gets a grace from the end of the outage. One that was granted by a
-- clock that was behind this one ends when it would have ended there.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] int    jobs at most
-- ARGV[2] int    a seed for the jitter of retry delays
-- ARGV[3] ms     how long an ended job's keys live on, should nobody sweep
-- ARGV[4] ms     moment up to which what follows may be believed; without these five there was no outage
-- ARGV[5] string the run of the server of which it holds
-- ARGV[6] ms     moment at which the latest outage began
-- ARGV[7] ms     moment at which it ended
-- ARGV[8] ms     how far the clock is ahead of that of the run before
-- Replies: {'stale'} when what is said of outages does not hold any more: nothing was done
--          | {'ok', jobs looked at, moment of the callbacks that became due or false, jobs back to pending without a retry,
--          jobs that got a retry, jobs that are dead now}
-- Events: delivery_timeout | retried | dead, the latter two with reason "timeout" or "limit"
-- Cost: about 12 commands a job and 25 in all; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: job
-- include: lease
-- include: make_pending
-- include: failed_attempt
-- include: server_run
-- include: outage_grace
-- include: gathering
-- include: gathered
local DELIVERIES_MOST = 100
local space = space_of(KEYS[1])
local most, seed, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local believed_till, run, began, ended = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local ahead = tonumber(ARGV[8] or 0)
local now = now_ms()

-- Returns when the callback of a job that died of it is due, or false.
local function end_lease(id, job, over_limit)
  if over_limit then
    local problem = '"The attempt ran for longer than its limit of ' .. job.limit_ms / 1000 .. ' s"'
    return fail_attempt(space, id, job, problem, ',"reason":"limit"', true, math.random(), now, keep_ms)
  end
  if job.status == 'running' then
    local problem = '"Execution timed out after ' .. job.timeout_ms / 1000 .. ' s"'
    return fail_attempt(space, id, job, problem, ',"reason":"timeout"', true, math.random(), now, keep_ms)
  end
  if job.deliveries >= DELIVERIES_MOST then
    local problem = '"Delivered ' .. job.deliveries .. ' times in a row without an ack"'
    return fail_attempt(space, id, job, problem, ',"reason":"timeout"', false, 0, now, keep_ms)
  end
  drop_lease(space, id)
  make_pending(space, id, job, 'delivery_timeout', 'null', now, 'deliveries', job.deliveries)
  return false
end

-- Until when a lease is good by the clock that granted it, if that was behind; once. 0 for any other.
local function granted_till(job, deadline)
  if ahead == 0 or deadline >= ended + job.timeout_ms then return 0 end
  if redis.call('HGET', job.key, 'leaseMoved') == tostring(ended) then return 0 end
  return deadline + ahead
end

pass_maxmemory(space)
return gathering(space, function()
  local callback_due, again, retried, dead = false, 0, 0, 0
  local due = redis.call('ZRANGEBYSCORE', space .. 'deadlines', '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  if believed_till and #due > 0 and (now > believed_till or run_id() ~= run) then return { 'stale' } end
  math.randomseed(seed)
  for i = 1, #due, 2 do
    local id, deadline = due[i], tonumber(due[i + 1])
    local left_ms = redis.call('PTTL', space .. 'lease:' .. id)
    local job = read_job(space, id)
    if left_ms > 0 then
      put_entry(space, 'deadlines', id, string.format('%d', now + left_ms))
    elseif job and is_leased(job.status) then
      local limit = limit_of(job, now)
      local over_limit = limit and limit <= now
      local costs_attempt = over_limit or job.status == 'running'
      local till = math.max(graced_till(job, deadline, began, ended), granted_till(job, deadline))
      if till > now then
        if ahead > 0 then redis.call('HSET', job.key, 'leaseMoved', ended) end
        put_entry(space, 'deadlines', id, string.format('%d', till))
      else
        callback_due = end_lease(id, job, over_limit) or callback_due
        if job.status == 'dead' then
          dead = dead + 1
        elseif costs_attempt then
          retried = retried + 1
        else
          again = again + 1
        end
      end
    else
      drop_lease(space, id)
    end
  end
  return { 'ok', #due / 2, callback_due, again, retried, dead }
end)
