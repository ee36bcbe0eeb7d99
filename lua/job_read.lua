-- One job and its newest events, as they are at one moment.
-- KEYS[1] hash   the space, jw:{S}:space
-- ARGV[1] id     the job
-- ARGV[2] int    events at most
-- ARGV[3] bytes  of events at most
-- Replies: {'ok', {field, value, ...}, seq of the first event in the reply, {event, ...}, events kept} | {'no_job'}
-- Events: none
-- Cost: 3 commands, and one for each 50 events
local space_key = KEYS[1]
local id, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local key = string.sub(space_key, 1, -6) .. 'job:' .. id

local fields = redis.call('HGETALL', key)
if #fields == 0 then return { 'no_job' } end
local last = tonumber(redis.call('HGET', key, 'eventSeq'))
local kept = redis.call('LLEN', key .. ':events')

local newest, bytes, full = {}, 0, false
while not full and #newest < math.min(most, kept) do
  local step = math.min(50, most - #newest)
  local items = redis.call('LRANGE', key .. ':events', -#newest - step, -#newest - 1)
  for i = #items, 1, -1 do
    bytes = bytes + #items[i]
    if bytes > most_bytes and #newest > 0 then
      full = true
      break
    end
    newest[#newest + 1] = items[i]
  end
end
local events = {}
for i = #newest, 1, -1 do events[#events + 1] = newest[i] end
return { 'ok', fields, last - #events + 1, events, kept }
