-- remove(...): every key and every index entry of a job in its space; `job` is nil when only entries are left. The log
-- lies in another slot: log_work names it until it has been removed, too. Needs job, lease, queue.
local function remove(space, id, job, now)
  release(space, id)
  for _, index in ipairs({ 'jobs', 'scheduled', 'ended', 'callbacks', 'pending' }) do
    redis.call('ZREM', space .. index, id)
  end
  for _, status in ipairs({ 'scheduled', 'pending', 'delivered', 'running', 'completed', 'dead', 'killed' }) do
    redis.call('ZREM', space .. 'jobs:' .. status, id)
  end
  redis.call('ZADD', space .. 'log_work', now, id)
  if not job then return end
  dequeue(space, id, job)
  local idem = redis.call('HGET', job.key, 'idem')
  -- The key may have been used again since it was forgotten, a day after: then it stands for other jobs.
  local made = idem and redis.call('GET', idem)
  if made and string.find(made, id, 1, true) then redis.call('DEL', idem) end
  redis.call('UNLINK', job.key, job.key .. ':events')
end
