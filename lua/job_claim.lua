-- Hand one pending job, named by its id, to a worker.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] ms     deadline on Redis's clock: a call that runs later takes nothing, for its caller has gone
-- ARGV[3] string a fresh lease token
-- ARGV[4] string the lease token that the caller holds, or ''
-- Replies: {'ok', job} as deliver makes it | {'late'} | {'no_job'} | {'lease_lost', status} | {'state', status}
-- Events: delivered
-- Cost: about 20 commands
-- include: space_prefix
-- include: clock
-- include: lease_fence
-- include: deliver
local space = space_of(KEYS[1])
local id, deadline, fresh, token = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
if refusal then return refusal end
if now > deadline then return { 'late' } end
if job.status ~= 'pending' then return { 'state', job.status } end

local field = redis.call('HMGET', job.key, 'payload', 'createdAt', 'checkpoint', 'traceparent')
return { 'ok', deliver(space, id, job, fresh, now, false, unpack(field, 1, 4)) }
