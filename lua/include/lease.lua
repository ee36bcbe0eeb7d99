-- include: gathered
-- include: spelled
-- A lease is a key that expires and a deadline that is swept: both are set here and nowhere else.

-- grant(...): a new lease; returns its end in ms.
local function grant(space, id, token, timeout_ms, now)
  redis.call('SET', space .. 'lease:' .. id, token, 'PX', timeout_ms)
  put_entry(space, 'deadlines', id, spelled(now + timeout_ms))
  return now + timeout_ms
end

-- renew(...): the lease anew, also after it lapsed; returns its end in ms. Works at maxmemory: PEXPIRE needs none.
local function renew(space, id, job, now)
  if redis.call('PEXPIRE', space .. 'lease:' .. id, job.timeout_ms) == 0 then
    redis.call('SET', space .. 'lease:' .. id, job.token, 'PX', job.timeout_ms)
  end
  put_entry(space, 'deadlines', id, spelled(now + job.timeout_ms))
  return now + job.timeout_ms
end

-- drop_lease(...): no lease any more. As a script's first write it lets the rest pass at maxmemory.
local function drop_lease(space, id)
  redis.call('DEL', space .. 'lease:' .. id)
  drop_entry(space, 'deadlines', id)
end
