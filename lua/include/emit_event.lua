-- include: event_message
-- include: spelled
-- One event: an item ["type",at,data,"status"] at the end of the job's list, an entry of the space's feed, and one
-- message on the job's channel and on the space's.
local EVENTS_MOST = 10000
local EVENTS_BYTES_MOST = 16777216
local FEED_MOST = 10000
local FEED_TRIM = 100
local SMALL_BYTES = 4096

-- emit(...): moves job.event_seq and job.event_bytes, which save_job writes with the rest of the job.
local function emit(space, id, job, kind, data, feed, now, counted)
  local events = job.key .. ':events'
  local at, position = spelled(now), string.format('%d', feed)
  local item = '["' .. kind .. '",' .. at .. ',' .. data .. ',"' .. job.status .. '"]'
  local kept = redis.call('RPUSH', events, item)
  job.event_seq = job.event_seq + 1
  job.event_bytes = job.event_bytes + #item
  while kept > 1 and (kept > EVENTS_MOST or job.event_bytes > EVENTS_BYTES_MOST) do
    job.event_bytes = job.event_bytes - #redis.call('LPOP', events)
    kept = kept - 1
  end
  local text = message(id, job, kind, data, position, at, counted)
  local small = text
  if #data > SMALL_BYTES then small = message(id, job, kind, 'null,"omitted":true', position, at, counted) end
  redis.call('XADD', space .. 'feed', position .. '-0', 'event', small)
  if feed % FEED_TRIM == 0 then redis.call('XTRIM', space .. 'feed', 'MAXLEN', '~', FEED_MOST) end
  -- Before its first event nobody knows the job's id, and so nobody watches it.
  if job.event_seq > 1 then redis.call('PUBLISH', space .. 'live:' .. id, text) end
  redis.call('PUBLISH', space .. 'live', small)
end
