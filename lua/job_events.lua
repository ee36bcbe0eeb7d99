-- A page of one job's events, after a seq.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- ARGV[2] seq    events after this one
-- ARGV[3] int    events at most
-- ARGV[4] bytes  of events at most
-- Replies: {'ok', seq of the first event in the reply, {event, ...}, seq of the oldest kept, seq of the newest} |
--          {'no_job'}
-- Events: none
-- Cost: 2 commands, and one for each 4 to 16 events
-- include: space_prefix
-- include: newest_events
local id, after, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local key = space_of(KEYS[1]) .. 'job:' .. id

local last = tonumber(redis.call('HGET', key, 'eventSeq'))
if not last then return { 'no_job' } end
local first = last - redis.call('LLEN', key .. ':events') + 1

local from = math.max(after + 1, first)
local events, bytes, full, step = {}, 0, false, EVENTS_STEP
while not full and #events < most and from + #events <= last do
  local start, before = from - first + #events, bytes
  for _, item in ipairs(redis.call('LRANGE', key .. ':events', start, start + math.min(step, most - #events) - 1)) do
    bytes = bytes + #item
    if bytes > most_bytes and #events > 0 then
      full = true
      break
    end
    events[#events + 1] = item
  end
  step = next_step(bytes - before)
end
return { 'ok', from, events, first, last }
