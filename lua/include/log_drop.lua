-- include: log_index
-- drop_oldest(log, blocks, kept, spared): the oldest block goes, or without blocks the oldest batch, unless it ends at the
-- seq `spared`. `kept` has first, bytes, sealed, hot and index, as log:meta has them; it is changed. Returns whether
-- something went.
local function drop_oldest(log, blocks, kept, spared)
  if kept.index ~= '' then
    redis.call('LTRIM', blocks, 1, -1)
    kept.first, kept.bytes = last_of(kept.index, 1) + 1, kept.bytes - stored_of(kept.index, 1)
    kept.index = string.sub(kept.index, INDEX_RECORD + 1)
    return true
  end
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local last = oldest and tonumber(string.match(oldest[1], '^%d+'))
  if not oldest or last == spared then return false end
  redis.call('XDEL', log, oldest[1])
  kept.first, kept.sealed = last + 1, last
  kept.bytes, kept.hot = kept.bytes - #oldest[2][6], kept.hot - #oldest[2][6]
  return true
end
