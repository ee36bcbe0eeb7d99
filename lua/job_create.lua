-- Create jobs: all of them or none; each pending, scheduled, or (claimed) delivered to its creator.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] string what a create under this Idempotency-Key did, or KEYS[1] again without one
-- KEYS[3] none   jw:{S}:moving, which never exists
-- ARGV[1] int    number of jobs, n
-- ARGV[2] hex    SHA-256 of the request's body, or '' without an Idempotency-Key
-- ARGV[3] ms     how long the Idempotency-Key is kept
-- ARGV[4] bytes  that jobs and events of the space may take, 0 for no bound
-- ARGV[5..]      per job eleven: id, name, payload (JSON), maxRetries, timeoutSeconds, scheduledFor (ms or ''),
--                callbackUrl (or ''), callbackHeaders (JSON or ''), retryDelay (or ''), lease token of a claim (or ''),
--                limitSeconds (or '');
--                after the last job, perhaps, the traceparent that all of them belong to
-- Replies: {'ok', createdAt} | {'replay', createdAt, 'id:token,...'} | {'no_space'} | {'mismatch'} | {'past', index} |
--          {'space_full', bytes}
-- Events: created; delivered for a claimed job
-- Cost: 5 commands a job, 7 more for a claimed one, and about 20 in all
-- include: space_prefix
-- include: clock
-- include: job_counts
-- include: space_bytes
-- include: emit_event
-- include: gathering
-- include: lease
-- include: pending_queue
-- include: spelled
-- include: gathered
local JUST_NOW_MS = 60000
local JOB_ARGS = 11
local space_key, idem_key = KEYS[1], KEYS[2]
local n, digest, idem_ms, most_bytes = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local trace = ARGV[5 + n * JOB_ARGS]
local space = space_of(space_key)
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
local scheduled, claimed, bytes = 0, 0, 0
for i = 1, n do
  local first = (i - 1) * JOB_ARGS + 5
  local due = ARGV[first + 5]
  if due ~= '' and tonumber(due) <= now then
    if tonumber(due) < now - JUST_NOW_MS then return { 'past', i - 1 } end
  elseif due ~= '' then
    scheduled = scheduled + 1
  end
  if ARGV[first + 9] ~= '' then claimed = claimed + 1 end
  bytes = bytes + JOB_BYTES + #ARGV[first + 1] + #ARGV[first + 2] + #ARGV[first + 6] + #ARGV[first + 7]
end
if most_bytes > 0 and held_bytes(space) + bytes > most_bytes then
  return { 'space_full', most_bytes }
end

local number = count_jobs(space)
number.scheduled, number.pending = number.scheduled + scheduled, number.pending + n - scheduled
local at, counts = spelled(now), counts_json(number)
local batch = nil
local made, claims = {}, {}
local function add(list, first, second)
  local size = #list
  list[size + 1], list[size + 2] = first, second
end

local function create(i)
  local first = (i - 1) * JOB_ARGS + 5
  local id, name, payload, max_retries, timeout_s, due, url, headers, delay, token, limit_s = unpack(ARGV, first,
    first + JOB_ARGS - 1)
  local feed = next_feed(space)
  local created = string.format('%d', feed)
  local status = due ~= '' and tonumber(due) > now and 'scheduled' or 'pending'
  local job = { key = space .. 'job:' .. id, name = name, status = status, event_seq = 0, event_bytes = 0 }
  emit(space, id, job, 'created', 'null', feed, now, counts)
  local field = { 'name', name, 'payload', payload, 'status', status, 'maxRetries', max_retries, 'timeoutSeconds', timeout_s,
    'attemptNumber', '0', 'created', created, 'eventSeq', '1', 'eventBytes', job.event_bytes, 'bytes',
    JOB_BYTES + #name + #payload + #url + #headers, 'createdAt', at, 'updatedAt', at }
  if due ~= '' then add(field, 'scheduledFor', due) end
  if url ~= '' then add(field, 'callbackUrl', url) end
  if headers ~= '' then add(field, 'callbackHeaders', headers) end
  if delay ~= '' then add(field, 'retryDelay', delay) end
  if limit_s ~= '' then add(field, 'limitSeconds', limit_s) end
  if trace then add(field, 'traceparent', trace) end
  if batch then
    add(field, 'batch', batch)
  elseif digest ~= '' then
    add(field, 'idem', idem_key)
  end
  redis.call('HSET', job.key, unpack(field))
  bytes = bytes + job.event_bytes
  made[i] = id .. ':' .. token
  put_entry(space, 'jobs', id, created)
  if status == 'scheduled' then
    put_entry(space, 'jobs:scheduled', id, created)
    put_entry(space, 'scheduled', id, due)
  elseif token ~= '' then
    put_entry(space, 'jobs:delivered', id, created)
    job.timeout_ms, job.limit_ms = timeout_s * 1000, limit_s ~= '' and limit_s * 1000
    claims[#claims + 1] = { id, job, token }
  else
    put_entry(space, 'jobs:pending', id, created)
    enqueue(space, id, job, feed)
  end
end

-- As include/deliver.lua, without the ways out of queues in which the job has never been.
local function claim(id, job, token)
  number.pending, number.delivered = number.pending - 1, number.delivered + 1
  job.status = 'delivered'
  bytes = bytes - job.event_bytes
  grant(space, id, job, token, now)
  emit(space, id, job, 'delivered', 'null', next_feed(space), now, counts_json(number))
  redis.call('HSET', job.key, 'status', 'delivered', 'deliveredAt', at, 'leaseToken', token, 'deliveries', '1',
    'eventSeq', '2', 'eventBytes', job.event_bytes)
  bytes = bytes + job.event_bytes
end

local function create_all()
  if digest ~= '' and n > 1 then batch = string.format('%d', space_seq(space) + 1) end
  for i = 1, n do create(i) end
  for _, claimed_job in ipairs(claims) do claim(unpack(claimed_job)) end
  add_bytes(space, bytes)
  if digest ~= '' then
    redis.call('SET', idem_key, digest .. ' ' .. at .. ' ' .. table.concat(made, ','), 'PX', idem_ms)
  end
  if batch then
    redis.call('HSET', space .. 'batch:' .. batch, 'key', idem_key, 'left', n)
    redis.call('PEXPIRE', space .. 'batch:' .. batch, idem_ms)
  end
  return { 'ok', now }
end

if n == 1 then return create_all() end
return gathering(space, create_all)
