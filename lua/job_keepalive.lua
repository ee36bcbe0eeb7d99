-- A worker lives: the lease of a delivered or running job anew.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- Replies: {'ok', status, lease end} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: none
-- Cost: 4 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: lease
local space = space_of(KEYS[1])
local id, token = ARGV[1], ARGV[2]

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if not is_leased(job.status) then return { 'state', job.status } end

return { 'ok', job.status, renew(space, id, job, now_ms()) }
