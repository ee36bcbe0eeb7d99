-- include: statuses
-- include: gathered
-- include: lease
-- include: spelled
-- forget(...): the Idempotency-Key under which a job was made, unless jobs that were made with it are left.
local function forget(space, id, key)
  local field = redis.call('HMGET', key, 'idem', 'batch')
  local idem, batch = field[1], field[2] and space .. 'batch:' .. field[2]
  if batch then
    idem = redis.call('HGET', batch, 'key')
    if not idem or redis.call('HINCRBY', batch, 'left', -1) > 0 then return end
    redis.call('DEL', batch)
  end
  -- The key may have been used again since it was forgotten, a day after: then it stands for other jobs.
  local made = idem and redis.call('GET', idem)
  if made and string.find(made, id, 1, true) then redis.call('DEL', idem) end
end

-- remove(...): every key and every index entry of a job in its space; `job` is nil when only entries are left. The log
-- lies in another slot: log_work names it until it has been removed, too.
local function remove(space, id, job, now)
  drop_lease(space, id)
  for _, index in ipairs({ 'jobs', 'scheduled', 'ended', 'callbacks', 'pending' }) do
    drop_entry(space, index, id)
  end
  for _, status in ipairs(STATUSES) do
    drop_entry(space, 'jobs:' .. status, id)
  end
  put_entry(space, 'log_work', id, spelled(now))
  if not job then return end
  drop_entry(space, 'pending:' .. job.name, id)
  forget(space, id, job.key)
  if job.bytes then add_bytes(space, -job.bytes - job.event_bytes) end
  redis.call('UNLINK', job.key, job.key .. ':events')
end

-- settle(space): nothing is held where no job is left, whatever was not counted on the way.
local function settle(space)
  if redis.call('EXISTS', space .. 'jobs') == 0 then redis.call('HDEL', space .. 'space', 'bytes') end
end
