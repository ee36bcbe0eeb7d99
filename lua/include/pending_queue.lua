-- include: gathered
-- include: spelled
-- The queue of pending jobs: one zset for all, one for each name, both by queue counter.

-- enqueue(...): to the back, and a hint to whoever waits for work.
local function enqueue(space, id, job, counter)
  put_entry(space, 'pending', id, spelled(counter))
  put_entry(space, 'pending:' .. job.name, id, spelled(counter))
  redis.call('PUBLISH', space .. 'wake', job.name)
end

-- dequeue(...): out of it, wherever it stands.
local function dequeue(space, id, job)
  drop_entry(space, 'pending', id)
  drop_entry(space, 'pending:' .. job.name, id)
end
