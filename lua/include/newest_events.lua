-- newest_events(key, kept, least, most, most_bytes): a job's newest events, oldest first: up to `most` of the `kept`
-- ones, and of those beyond `least` no more than fit into the bytes. Few are read at once, for each may have 256 KiB.
local function newest_events(key, kept, least, most, most_bytes)
  local STEP = 4
  local newest, bytes, full = {}, 0, false
  most = math.min(most, kept)
  while not full and #newest < most do
    local step = math.min(STEP, most - #newest)
    local items = redis.call('LRANGE', key .. ':events', -#newest - step, -#newest - 1)
    for i = #items, 1, -1 do
      bytes = bytes + #items[i]
      if bytes > most_bytes and #newest >= least then
        full = true
        break
      end
      newest[#newest + 1] = items[i]
    end
  end
  local events = {}
  for i = #newest, 1, -1 do events[#events + 1] = newest[i] end
  return events
end
