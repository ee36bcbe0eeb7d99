-- Create jobs: all of them or none; each pending, scheduled, or (claimed) delivered to its creator.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] string what a create under this Idempotency-Key did, or KEYS[1] again without one
-- ARGV[1] int    number of jobs, n
-- ARGV[2] hex    SHA-256 of the request's body, or '' without an Idempotency-Key
-- ARGV[3] ms     how long the Idempotency-Key is kept
-- ARGV[4..]      per job ten: id, name, payload (JSON), maxRetries, timeoutSeconds, scheduledFor (ms or ''),
--                callbackUrl (or ''), callbackHeaders (JSON or ''), retryDelay (or ''), lease token of a claim (or '');
--                after the last job, perhaps, the traceparent that all of them belong to
-- Replies: {'ok', createdAt} | {'replay', createdAt, 'id:token,...'} | {'no_space'} | {'mismatch'} | {'past', index}
-- Events: created; delivered for a claimed job
-- Cost: 5 commands a job, about 15 more for a claimed one, and 12 in all
-- include: clock
-- include: job
-- include: emit
-- include: lease
-- include: queue
-- include: deliver
local space_key, idem_key = KEYS[1], KEYS[2]
local n, digest, idem_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local trace = ARGV[4 + n * 10]
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
local scheduled = 0
for i = 0, n - 1 do
  local due = ARGV[9 + i * 10]
  if due ~= '' then
    if tonumber(due) <= now then return { 'past', i } end
    scheduled = scheduled + 1
  end
end

local seq = redis.call('HINCRBY', space_key, 'seq', n) - n
local number = count(space)
number.scheduled, number.pending = number.scheduled + scheduled, number.pending + n - scheduled
local counted = spell(number)
local made, claimed, indexes = {}, {}, {}
local function also(field, name, value)
  field[#field + 1] = name
  field[#field + 1] = value
end
local function index(key, score, id)
  local scored = indexes[key]
  if not scored then
    scored = { size = 0 }
    indexes[key] = scored
  end
  local size = scored.size + 2
  scored[size - 1], scored[size], scored.size = score, id, size
end

for i = 1, n do
  local at = i * 10 - 6
  local id, name, payload, max_retries, timeout_s, due, url, headers, delay, token = unpack(ARGV, at, at + 9)
  local feed = seq + i
  local status = due == '' and 'pending' or 'scheduled'
  local job = { key = space .. 'job:' .. id, name = name, status = status, event_seq = 0, event_bytes = 0 }
  emit(space, id, job, 'created', 'null', feed, now, counted)
  local field = { 'name', name, 'payload', payload, 'status', status, 'maxRetries', max_retries,
    'timeoutSeconds', timeout_s, 'attemptNumber', 0, 'createdAt', now, 'updatedAt', now, 'created', feed,
    'eventSeq', job.event_seq, 'eventBytes', job.event_bytes }
  if due ~= '' then also(field, 'scheduledFor', due) end
  if url ~= '' then also(field, 'callbackUrl', url) end
  if headers ~= '' then also(field, 'callbackHeaders', headers) end
  if delay ~= '' then also(field, 'retryDelay', delay) end
  if trace then also(field, 'traceparent', trace) end
  if digest ~= '' and i == 1 then also(field, 'idem', idem_key) end
  redis.call('HSET', job.key, unpack(field))
  index('jobs', feed, id)
  index('jobs:' .. status, feed, id)
  if due ~= '' then
    index('scheduled', due, id)
  elseif token ~= '' then
    claimed[#claimed + 1] = { id, token }
  else
    index('pending', feed, id)
    index('pending:' .. name, feed, id)
    redis.call('PUBLISH', space .. 'wake', name)
  end
  made[i] = id .. ':' .. token
end
for key, scored in pairs(indexes) do redis.call('ZADD', space .. key, unpack(scored, 1, scored.size)) end
for _, claim in ipairs(claimed) do
  local id, token = unpack(claim)
  deliver(space, id, read_job(space .. 'job:' .. id), token, now)
end
if digest ~= '' then
  redis.call('SET', idem_key, digest .. ' ' .. now .. ' ' .. table.concat(made, ','), 'PX', idem_ms)
end
return { 'ok', now }
