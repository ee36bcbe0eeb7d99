-- One event: an item ["type",at,data,"status"] at the end of the job's list, an entry of the space's feed, and one message on the
-- job's channel and on the space's. The message is the same JSON object everywhere:
-- {"type","jobId","jobName","status","seq","feed","at","counts","data"}; seq counts the job's events, feed the space's.
local EVENTS_MOST = 10000
local EVENTS_BYTES_MOST = 16777216
local FEED_MOST = 10000
local SMALL_BYTES = 4096

-- message(...): the JSON object above; `data` and `counts` are JSON already.
local function message(id, job, kind, data, feed, now, counted)
  return '{"type":"' .. kind .. '","jobId":"' .. id .. '","jobName":' .. cjson.encode(job.name)
    .. ',"status":"' .. job.status .. '","seq":' .. job.event_seq .. ',"feed":' .. feed .. ',"at":' .. now
    .. ',"counts":' .. counted .. ',"data":' .. data .. '}'
end

-- publish(...): to the viewers of the job and of the space; data over 4 KiB goes to the job's only.
local function publish(space, id, text, small)
  redis.call('PUBLISH', space .. 'live:' .. id, text)
  redis.call('PUBLISH', space .. 'live', small)
end

-- next_feed(space): the space's next seq, which also orders creation and queues.
local function next_feed(space)
  return redis.call('HINCRBY', space .. 'space', 'seq', 1)
end

-- emit(...): moves job.event_seq and job.event_bytes, which the caller stores with the rest of the job.
local function emit(space, id, job, kind, data, feed, now, counted)
  local events = job.key .. ':events'
  local item = '["' .. kind .. '",' .. now .. ',' .. data .. ',"' .. job.status .. '"]'
  local kept = redis.call('RPUSH', events, item)
  job.event_seq = job.event_seq + 1
  job.event_bytes = job.event_bytes + #item
  while kept > 1 and (kept > EVENTS_MOST or job.event_bytes > EVENTS_BYTES_MOST) do
    job.event_bytes = job.event_bytes - #redis.call('LPOP', events)
    kept = kept - 1
  end
  local text = message(id, job, kind, data, feed, now, counted)
  local small = text
  if #data > SMALL_BYTES then small = message(id, job, kind, 'null,"omitted":true', feed, now, counted) end
  redis.call('XADD', space .. 'feed', 'MAXLEN', '~', FEED_MOST, feed .. '-0', 'event', small)
  publish(space, id, text, small)
end
