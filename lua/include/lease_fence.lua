-- include: job
-- fenced_job(space, id, token): the job, and the refusal of a call that holds another lease than its latest, or nil. A
-- call without a token holds none, and is let through.
local function fenced_job(space, id, token)
  local job = read_job(space, id)
  if not job then return nil, { 'no_job' } end
  if token ~= '' and token ~= job.token then return job, { 'lease_lost', job.status } end
  return job, nil
end
