-- A worker is done: delivered or running -> completed. Repeated with the same result it is answered again.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the result
-- ARGV[4] ms     how long the job's keys live on, should nobody sweep
-- Replies: {'ok', 'completed', moment of the callback or false} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: completed, its data is the result
-- Cost: about 27 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: finish
local space = space_of(KEYS[1])
local id, token, result, keep_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if job.status == 'completed' and redis.call('HGET', job.key, 'result') == result then
  return { 'ok', 'completed', false }
end
if not is_leased(job.status) then return { 'state', job.status } end

local unstarted = job.status == 'delivered'
local callback_due = finish(space, id, job, 'completed', result, result, now, keep_ms)
if unstarted then redis.call('HSET', job.key, 'startedAt', now) end
return { 'ok', 'completed', callback_due }
