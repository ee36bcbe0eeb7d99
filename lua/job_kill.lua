-- Somebody ends a job that has not ended: any such status -> killed.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the reason, a string or null
-- ARGV[4] ms     how long the job's keys live on, should nobody sweep
-- Replies: {'ok', 'killed', moment of the callback or false} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: killed, with data {reason}
-- Cost: about 27 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: finish
local space = space_of(KEYS[1])
local id, token, reason, keep_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if has_ended(job.status) then return { 'state', job.status } end

local result = '{"reason":' .. reason .. '}'
return { 'ok', 'killed', finish(space, id, job, 'killed', result, result, now, keep_ms) }
