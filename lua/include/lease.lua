-- include: gathered
-- include: spelled
-- A lease is a key that expires and a deadline that is swept: both are set here and nowhere else.

-- limit_of(job, now): until when the attempt may run, from its ack on, or from its delivery without one; nil for ever.
local function limit_of(job, now)
  return job.limit_ms and (job.started or job.delivered or now) + job.limit_ms
end

-- lease_ms(job, now): how long a lease is that begins now: the job's timeout, or what its limit leaves of it, at least 1 ms.
local function lease_ms(job, now)
  local limit = limit_of(job, now)
  return limit and math.max(1, math.min(job.timeout_ms, limit - now)) or job.timeout_ms
end

-- grant(...): a new lease, with which an attempt begins; returns its end in ms.
local function grant(space, id, job, token, now)
  job.delivered, job.started = now, nil
  local length_ms = lease_ms(job, now)
  redis.call('SET', space .. 'lease:' .. id, token, 'PX', length_ms)
  put_entry(space, 'deadlines', id, spelled(now + length_ms))
  return now + length_ms
end

-- renew(...): the lease anew, also after it lapsed; returns its end in ms. Works at maxmemory: PEXPIRE needs none.
local function renew(space, id, job, now)
  local length_ms = lease_ms(job, now)
  if redis.call('PEXPIRE', space .. 'lease:' .. id, length_ms) == 0 then
    redis.call('SET', space .. 'lease:' .. id, job.token, 'PX', length_ms)
  end
  put_entry(space, 'deadlines', id, spelled(now + length_ms))
  return now + length_ms
end

-- drop_lease(...): no lease any more. As a script's first write it lets the rest pass at maxmemory.
local function drop_lease(space, id)
  redis.call('DEL', space .. 'lease:' .. id)
  drop_entry(space, 'deadlines', id)
end
