-- include: event_message
-- One event: an item ["type",at,data,"status"] at the end of the job's list, an entry of the space's feed, and one
-- message on the job's channel and on the space's.
local EVENTS_MOST = 10000
local EVENTS_BYTES_MOST = 16777216
local FEED_MOST = 10000
local FEED_TRIM = 100
local SMALL_BYTES = 4096

-- next_feed(space): the space's next seq, which also orders creation and queues.
local function next_feed(space)
  return redis.call('HINCRBY', space .. 'space', 'seq', 1)
end

-- emit(...): moves job.event_seq and job.event_bytes, which the caller stores with the rest of the job.
local function emit(space, id, job, kind, data, feed, now, counted)
  local events = job.key .. ':events'
  -- Twice used, and a number costs as much to spell as the rest of a text to join.
  local at, position = string.format('%d', now), string.format('%d', feed)
  local item = '["' .. kind .. '",' .. at .. ',' .. data .. ',"' .. job.status .. '"]'
  local kept, before = redis.call('RPUSH', events, item), job.event_bytes
  job.event_seq = job.event_seq + 1
  job.event_bytes = before + #item
  while kept > 1 and (kept > EVENTS_MOST or job.event_bytes > EVENTS_BYTES_MOST) do
    job.event_bytes = job.event_bytes - #redis.call('LPOP', events)
    kept = kept - 1
  end
  if job.bytes then redis.call('HINCRBY', space .. 'space', 'bytes', job.event_bytes - before) end
  local text = message(id, job, kind, data, position, at, counted)
  local small = text
  if #data > SMALL_BYTES then small = message(id, job, kind, 'null,"omitted":true', position, at, counted) end
  redis.call('XADD', space .. 'feed', position .. '-0', 'event', small)
  if feed % FEED_TRIM == 0 then redis.call('XTRIM', space .. 'feed', 'MAXLEN', '~', FEED_MOST) end
  -- Before its first event nobody knows the job's id, and so nobody watches it.
  if job.event_seq > 1 then redis.call('PUBLISH', space .. 'live:' .. id, text) end
  redis.call('PUBLISH', space .. 'live', small)
end
