-- unread(log, last): whether a consumer group of the stream has still to read, or to acknowledge, lines up to that seq.
local function unread(log, last)
  if redis.call('EXISTS', log) == 0 then return false end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
    local told = {}
    for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
    if tonumber(string.match(told['last-delivered-id'], '^%d+')) < last then return true end
    if told['pending'] > 0 then
      local oldest = redis.call('XPENDING', log, told['name'])[2]
      if oldest and tonumber(string.match(oldest, '^%d+')) <= last then return true end
    end
  end
  return false
end
