-- newest_events(key, kept, least, most, most_bytes): a job's newest events, oldest first: up to `most` of the `kept`
-- ones, and of those beyond `least` no more than fit into the bytes. Few are read at once, for each may have 256 KiB: 4,
-- and 16 after such as were small.
local EVENTS_STEP = 4
local EVENTS_STEP_SMALL = 16
local EVENTS_SMALL_BYTES = 16384

local function next_step(bytes)
  return bytes <= EVENTS_SMALL_BYTES and EVENTS_STEP_SMALL or EVENTS_STEP
end

local function newest_events(key, kept, least, most, most_bytes)
  local newest, bytes, full, step = {}, 0, false, EVENTS_STEP
  most = math.min(most, kept)
  while not full and #newest < most do
    local before = bytes
    local items = redis.call('LRANGE', key .. ':events', -#newest - math.min(step, most - #newest), -#newest - 1)
    for i = #items, 1, -1 do
      bytes = bytes + #items[i]
      if bytes > most_bytes and #newest >= least then
        full = true
        break
      end
      newest[#newest + 1] = items[i]
    end
    step = next_step(bytes - before)
  end
  local events = {}
  for i = #newest, 1, -1 do events[#events + 1] = newest[i] end
  return events
end
