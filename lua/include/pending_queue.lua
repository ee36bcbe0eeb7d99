-- The queue of pending jobs: one zset for all, one for each name, both by queue counter.

-- enqueue(...): to the back, and a hint to whoever waits for work.
local function enqueue(space, id, job, counter)
  redis.call('ZADD', space .. 'pending', counter, id)
  redis.call('ZADD', space .. 'pending:' .. job.name, counter, id)
  redis.call('PUBLISH', space .. 'wake', job.name)
end

-- dequeue(...): out of it, wherever it stands.
local function dequeue(space, id, job)
  redis.call('ZREM', space .. 'pending', id)
  redis.call('ZREM', space .. 'pending:' .. job.name, id)
end
