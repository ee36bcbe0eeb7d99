-- read_job(space, id): what every transition asks of a job's hash, or nil without one.
local function read_job(space, id)
  local key = space .. 'job:' .. id
  local field = redis.call('HMGET', key, 'status', 'name', 'attemptNumber', 'maxRetries', 'timeoutSeconds',
    'leaseToken', 'created', 'deliveries', 'eventSeq', 'eventBytes', 'bytes', 'startedAt')
  if not field[1] then return nil end
  return {
    key = key,
    status = field[1],
    name = field[2],
    attempt = tonumber(field[3]),
    max_retries = tonumber(field[4]),
    timeout_ms = tonumber(field[5]) * 1000,
    token = field[6] or '',
    created = tonumber(field[7]),
    deliveries = tonumber(field[8] or 0),
    event_seq = tonumber(field[9]),
    event_bytes = tonumber(field[10]),
    bytes = field[11] and tonumber(field[11]),
    started = field[12] and tonumber(field[12]),
  }
end
