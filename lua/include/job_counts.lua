-- include: statuses
-- include: gathered
-- How many jobs of a space have each status: the indexes, and the JSON object that events carry.

-- count_jobs(space): how many jobs each status has.
local function count_jobs(space)
  local n = {}
  for _, status in ipairs(STATUSES) do
    n[status] = redis.call('ZCARD', space .. 'jobs:' .. status)
  end
  return n
end

-- counts_json(n): what count_jobs answers, as a JSON object.
local function counts_json(n)
  return string.format(
    '{"scheduled":%d,"pending":%d,"delivered":%d,"running":%d,"completed":%d,"dead":%d,"killed":%d}',
    n.scheduled, n.pending, n.delivered, n.running, n.completed, n.dead, n.killed)
end

-- job_counts(space): jobs by status, as a JSON object. Counted once in a script, which handles one space, and before
-- anything moves there; move keeps it so.
local known_counts = nil
local function job_counts(space)
  known_counts = known_counts or count_jobs(space)
  return counts_json(known_counts)
end

-- move(space, id, job, status): the job leaves one status index for another.
local function move(space, id, job, status)
  known_counts = known_counts or count_jobs(space)
  known_counts[job.status] = known_counts[job.status] - 1
  known_counts[status] = known_counts[status] + 1
  drop_entry(space, 'jobs:' .. job.status, id)
  put_entry(space, 'jobs:' .. status, id, job.created)
  job.status = status
end
