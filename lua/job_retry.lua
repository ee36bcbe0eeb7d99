-- An operator lets a job run again that is dead or killed: -> pending, with one more retry than it has used.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- Replies: {'ok', 'pending'} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: requeued
-- Cost: about 25 commands
-- include: clock
-- include: job
-- include: retry
local space_key = KEYS[1]
local id, token = ARGV[1], ARGV[2]
local space = string.sub(space_key, 1, -6)
local now = now_ms()

local job = read_job(space .. 'job:' .. id)
local refusal = fence(job, token)
if refusal then return refusal end
if job.status ~= 'dead' and job.status ~= 'killed' then return { 'state', job.status } end

retry(space, id, job, now)
return { 'ok', 'pending' }
