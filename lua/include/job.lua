-- include: gathered
-- A job as transitions see it: read in one command, and written back in one with what they changed.

-- read_job(space, id, ...): what every transition asks of a job's hash, or nil without one, and the values of further
-- fields.
local function read_job(space, id, ...)
  local key = space .. 'job:' .. id
  local field = redis.call('HMGET', key, 'status', 'name', 'attemptNumber', 'maxRetries', 'timeoutSeconds', 'leaseToken',
    'created', 'deliveries', 'eventSeq', 'eventBytes', 'bytes', 'startedAt', 'callbackUrl', 'deliveredAt',
    'limitSeconds', ...)
  if not field[1] then return nil end
  local job = {
    key = key,
    status = field[1],
    name = field[2],
    attempt = tonumber(field[3]),
    max_retries = tonumber(field[4]),
    timeout_ms = field[5] * 1000,
    token = field[6] or '',
    created = field[7],
    deliveries = tonumber(field[8] or 0),
    event_seq = tonumber(field[9]),
    event_bytes = tonumber(field[10]),
    bytes = field[11] and tonumber(field[11]),
    started = field[12] and tonumber(field[12]),
    calls_back = field[13] ~= false,
    delivered = field[14] and tonumber(field[14]),
    limit_ms = field[15] and field[15] * 1000,
  }
  job.bytes_before, job.event_bytes_before = job.bytes, job.event_bytes
  return job, unpack(field, 16, 15 + select('#', ...))
end

-- save_job(space, job, ...): fields and values that a transition changed; with them how many events and bytes there are,
-- for the job and for its space.
local function save_job(space, job, ...)
  if job.bytes and job.bytes ~= job.bytes_before then
    redis.call('HSET', job.key, 'bytes', job.bytes, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes, ...)
  else
    redis.call('HSET', job.key, 'eventSeq', job.event_seq, 'eventBytes', job.event_bytes, ...)
  end
  if job.bytes then
    add_bytes(space, job.bytes - job.bytes_before + job.event_bytes - job.event_bytes_before)
    job.bytes_before, job.event_bytes_before = job.bytes, job.event_bytes
  end
end
