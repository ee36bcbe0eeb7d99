-- An attempt failed: delivered or running -> pending or scheduled while a retry is left, else dead. A caller who claims
-- the retry gets it in the same step: -> delivered. Repeated with the lease token that failed, such a call is answered
-- like the first for as long as the retry is still the caller's.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] string the lease token that the caller holds, or ''
-- ARGV[3] JSON   the error, a string or null
-- ARGV[4] 0|1    whether a retry may follow
-- ARGV[5] float  a random share, 0 to 1, for the jitter of the retry delay
-- ARGV[6] ms     how long the job's keys live on, should nobody sweep
-- ARGV[7] ms     how long the retry waits, or '' for the job's own delay
-- ARGV[8] string a fresh lease token for a caller who claims the retry, or ''
-- Replies: {'ok', status, willRetry 0|1, attemptNumber, scheduledFor or false, moment of the callback or false, the lease
--          token of the claimed retry or '', the length of its lease in ms} | {'delayed'} | {'no_job'} |
--          {'lease_lost', status} | {'state', status}
-- Events: retried | dead | delivered
-- Cost: about 40 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: lease_fence
-- include: deliver
-- include: failed_attempt
-- include: retry_delay
local space = space_of(KEYS[1])
local id, token, problem, may_retry = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local chance, keep_ms, wait_ms, fresh = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), ARGV[8]
local now = now_ms()

local job, refusal = fenced_job(space, id, token)
local leased = job and is_leased(job.status)
if leased and fresh ~= '' and token ~= '' then
  local failed, claimed = string.match(redis.call('HGET', job.key, 'claimedRetry') or '', '^(%S+) (%S+)$')
  if failed == token and claimed == job.token then
    return { 'ok', job.status, 1, job.attempt, false, false, claimed, job.timeout_ms }
  end
end
if refusal then return refusal end
if not leased then return { 'state', job.status } end
if fresh ~= '' and (wait_ms or most_delay_ms(job)) > 0 then return { 'delayed' } end

local failed = job.token
local callback_due = fail_attempt(space, id, job, problem, '', may_retry, chance, now, keep_ms, wait_ms)
if fresh ~= '' and job.status == 'pending' then
  job.deliveries = 0
  deliver(space, id, job, fresh, now)
  redis.call('HSET', job.key, 'claimedRetry', failed .. ' ' .. fresh)
  return { 'ok', job.status, 1, job.attempt, false, callback_due, fresh, job.timeout_ms }
end
local due = job.status == 'scheduled' and redis.call('HGET', job.key, 'scheduledFor')
return { 'ok', job.status, job.status == 'dead' and 0 or 1, job.attempt, due, callback_due, '', job.timeout_ms }
