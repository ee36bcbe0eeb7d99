-- The statuses of a job, in the order of its life, as app/model/job.py has them.
local STATUSES = { 'scheduled', 'pending', 'delivered', 'running', 'completed', 'dead', 'killed' }

-- is_leased(status): whether a worker has the job.
local function is_leased(status)
  return status == 'delivered' or status == 'running'
end

-- has_ended(status): whether the job is over.
local function has_ended(status)
  return status == 'completed' or status == 'dead' or status == 'killed'
end
