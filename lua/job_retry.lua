-- An operator lets a job run again that is dead or killed: -> pending, with one more retry than it has used.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- Replies: {'ok', 'pending'} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: requeued
-- Cost: about 25 commands
-- include: space_prefix
-- include: clock
-- include: lease_fence
-- include: retry
local space = space_of(KEYS[1])
local id, token = ARGV[1], ARGV[2]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if job.status ~= 'dead' and job.status ~= 'killed' then return { 'state', job.status } end

retry(space, id, job, now)
return { 'ok', 'pending' }
