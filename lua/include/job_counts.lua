-- include: statuses
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
  local numbers = {}
  for i, status in ipairs(STATUSES) do numbers[i] = n[status] end
  return string.format('{"' .. table.concat(STATUSES, '":%d,"') .. '":%d}', unpack(numbers))
end

-- job_counts(space): jobs by status, as a JSON object. Counted once in a script, which handles one space; move keeps it so.
local known_counts = nil
local function job_counts(space)
  known_counts = known_counts or count_jobs(space)
  return counts_json(known_counts)
end

-- move(space, id, job, status): the job leaves one status index for another.
local function move(space, id, job, status)
  local left = redis.call('ZREM', space .. 'jobs:' .. job.status, id)
  local joined = redis.call('ZADD', space .. 'jobs:' .. status, job.created, id)
  if known_counts then
    known_counts[job.status] = known_counts[job.status] - left
    known_counts[status] = known_counts[status] + joined
  end
  job.status = status
end
