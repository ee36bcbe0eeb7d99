-- Create jobs: all of them or none; each pending, scheduled, or (claimed) delivered to its creator.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] string what a create under this Idempotency-Key did, or KEYS[1] again without one
-- ARGV[1] int    number of jobs, n
-- ARGV[2] hex    SHA-256 of the request's body, or '' without an Idempotency-Key
-- ARGV[3] ms     how long the Idempotency-Key is kept
-- ARGV[4..]      per job ten: id, name, payload (JSON), maxRetries, timeoutSeconds, scheduledFor (ms or ''),
--                callbackUrl (or ''), callbackHeaders (JSON or ''), retryDelay (or ''), lease token of a claim (or '')
-- Replies: {'ok', createdAt} | {'replay', createdAt, 'id:token,...'} | {'no_space'} | {'mismatch'} | {'past', index}
-- Events: created; delivered for a claimed job
-- Cost: about 20 commands a job
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: deliver
local space_key, idem_key = KEYS[1], KEYS[2]
local n, digest, idem_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local space = string.sub(space_key, 1, -6)
local now = now_ms()

if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end
if digest ~= '' then
  local before = redis.call('GET', idem_key)
  if before then
    local hash, at, made = string.match(before, '^(%S+) (%S+) (%S+)$')
    if hash ~= digest then return { 'mismatch' } end
    return { 'replay', at, made }
  end
end
for i = 0, n - 1 do
  local due = ARGV[9 + i * 10]
  if due ~= '' and tonumber(due) <= now then return { 'past', i } end
end

local made = {}
for i = 0, n - 1 do
  local at = 4 + i * 10
  local id, name, payload, max_retries, timeout_s = unpack(ARGV, at, at + 4)
  local due, url, headers, delay, token = unpack(ARGV, at + 5, at + 9)
  local feed = next_feed(space)
  local job = {
    key = space .. 'job:' .. id, name = name, status = due == '' and 'pending' or 'scheduled', token = '',
    timeout_ms = tonumber(timeout_s) * 1000, created = feed, deliveries = 0, event_seq = 0, event_bytes = 0,
  }
  redis.call('ZADD', space .. 'jobs', feed, id)
  redis.call('ZADD', space .. 'jobs:' .. job.status, feed, id)
  emit(space, id, job, 'created', 'null', feed, now, counts(space))
  local field = { 'name', name, 'payload', payload, 'status', job.status, 'maxRetries', max_retries,
    'timeoutSeconds', timeout_s, 'attemptNumber', 0, 'createdAt', now, 'updatedAt', now, 'created', feed,
    'eventSeq', job.event_seq, 'eventBytes', job.event_bytes }
  local function also(name_, value)
    if value ~= '' then
      field[#field + 1] = name_
      field[#field + 1] = value
    end
  end
  also('scheduledFor', due)
  also('callbackUrl', url)
  also('callbackHeaders', headers)
  also('retryDelay', delay)
  if digest ~= '' and i == 0 then also('idem', idem_key) end
  redis.call('HSET', job.key, unpack(field))
  if due ~= '' then
    redis.call('ZADD', space .. 'scheduled', due, id)
  elseif token ~= '' then
    deliver(space, id, job, token, now)
  else
    enqueue(space, id, job, feed)
  end
  made[i + 1] = id .. ':' .. token
end
if digest ~= '' then
  redis.call('SET', idem_key, digest .. ' ' .. now .. ' ' .. table.concat(made, ','), 'PX', idem_ms)
end
return { 'ok', now }
