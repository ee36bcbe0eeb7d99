-- include: gathered
-- include: spelled
-- The queue of pending jobs: one zset for all, one for each name, both by queue counter.

-- Whoever waits for work gets a hint for each job, which is its name; for very many of one name at once so many, and an
-- empty one: there are more, look at the queues.
local HINTS_MOST = 64
local queued = {}

local function hint_queued(space)
  for name, jobs in pairs(queued) do
    for _ = 1, math.min(jobs, HINTS_MOST) do redis.call('PUBLISH', space .. 'wake', name) end
    if jobs > HINTS_MOST then redis.call('PUBLISH', space .. 'wake', '') end
  end
  queued = {}
end

-- enqueue(...): to the back, and a hint.
local function enqueue(space, id, job, counter)
  put_entry(space, 'pending', id, spelled(counter))
  put_entry(space, 'pending:' .. job.name, id, spelled(counter))
  if gathered and next(queued) == nil then write_last(function() hint_queued(space) end) end
  queued[job.name] = (queued[job.name] or 0) + 1
  if not gathered then hint_queued(space) end
end

-- dequeue(...): out of it, wherever it stands.
local function dequeue(space, id, job)
  drop_entry(space, 'pending', id)
  drop_entry(space, 'pending:' .. job.name, id)
end
