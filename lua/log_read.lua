-- Record batches of a job's log, in one direction from a seq, as they are at one moment.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] hash   jw:{J}:log:meta
-- ARGV[1] string after | before
-- ARGV[2] int    seq that is not wanted itself; before: 0 for the end of the log
-- ARGV[3] int    lines at most, counted in whole batches
-- ARGV[4] bytes  at most, but at least one batch; and never more than 512 batches
-- Replies: {'ok', firstSeq, lastSeq, {first, last, ms, lines, ...}} in the order of travel | {'none'} without a log
-- Events: none
-- Cost: one command for each 8 batches, and about 3
local log, meta = KEYS[1], KEYS[2]
local forward, position = ARGV[1] == 'after', tonumber(ARGV[2])
local lines_most, bytes_most = tonumber(ARGV[3]), tonumber(ARGV[4])
local STEP = 8
local BATCHES_MOST = 512

local field = redis.call('HMGET', meta, 'firstSeq', 'lastSeq')
if not field[1] then return { 'none' } end
local first_kept, newest = tonumber(field[1]), tonumber(field[2])
if not forward and (position == 0 or position > newest) then position = newest + 1 end

-- The batch that holds a seq is the first whose id, the seq of its last line, is not below it.
local edge = string.format('(%d-0', position)
if not forward then
  local holder = redis.call('XRANGE', log, string.format('%d-0', position - 1), '+', 'COUNT', 1)[1]
  edge = holder and holder[1] or '+'
end

local found, lines, bytes, reached = {}, 0, 0, false
while not reached do
  local batches
  if forward then
    batches = redis.call('XRANGE', log, edge, '+', 'COUNT', STEP)
  else
    batches = redis.call('XREVRANGE', log, edge, '-', 'COUNT', STEP)
  end
  reached = #batches < STEP
  for _, batch in ipairs(batches) do
    local first, last, text = tonumber(batch[2][2]), tonumber(string.match(batch[1], '^%d+')), batch[2][6]
    if #found > 0 and bytes + #text > bytes_most then
      reached = true
      break
    end
    found[#found + 1] = first
    found[#found + 1] = last
    found[#found + 1] = tonumber(batch[2][4])
    found[#found + 1] = text
    bytes = bytes + #text
    if forward then
      lines = last - math.max(position, first_kept - 1)
    else
      lines = position - first
    end
    if lines >= lines_most or #found >= 4 * BATCHES_MOST then
      reached = true
      break
    end
    edge = '(' .. batch[1]
  end
end
return { 'ok', first_kept, newest, found }
