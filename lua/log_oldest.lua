-- The oldest lines of a job's log that are not sealed yet, for whoever seals them.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] hash   jw:{J}:log:meta
-- KEYS[3] none   jw:{J}:moving, which never exists
-- ARGV[1] int    lines that shall stay as they are
-- ARGV[2] bytes  of lines that shall stay as they are
-- ARGV[3] int    lines up to which those that a consumer group has still to read are spared
-- ARGV[4] bytes  of lines up to which they are spared
-- ARGV[5] int    lines that are wanted, in whole batches
-- ARGV[6] bytes  that are wanted; there is at least one batch
-- Replies: {'ok', {first, last, ms, lines, ...}, 1 if they are all that shall be sealed now else 0}
--   | {'none'} without anything to seal | {'spared'}
-- Events: none
-- Cost: one command for each 8 batches, two for each consumer group, and about 3
-- include: log_groups
local log, meta = KEYS[1], KEYS[2]
local keep_lines, keep_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local spare_lines, spare_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local lines_most, bytes_most = tonumber(ARGV[5]), tonumber(ARGV[6])
local STEP = 8
local BATCHES_MOST = 4096

local field = redis.call('HMGET', meta, 'lastSeq', 'sealed', 'hot')
if not field[1] then return { 'none' } end
local newest, sealed, hot = tonumber(field[1]), tonumber(field[2] or 0), tonumber(field[3] or 0)
local found, lines, bytes, reached = {}, 0, 0, false
local edge = '-'
while not reached do
  local batches = redis.call('XRANGE', log, edge, '+', 'COUNT', STEP)
  reached = #batches < STEP
  for _, batch in ipairs(batches) do
    if newest - sealed - lines <= keep_lines and hot - bytes <= keep_bytes then
      reached = true
      break
    end
    local first, last, text = tonumber(batch[2][2]), tonumber(string.match(batch[1], '^%d+')), batch[2][6]
    if #found == 0 and newest - sealed <= spare_lines and hot <= spare_bytes and unread(log, last) then
      return { 'spared' }
    end
    found[#found + 1] = first
    found[#found + 1] = last
    found[#found + 1] = tonumber(batch[2][4])
    found[#found + 1] = text
    lines, bytes = lines + last - first + 1, bytes + #text
    if lines >= lines_most or bytes >= bytes_most or #found >= 4 * BATCHES_MOST then
      return { 'ok', found, 0 }
    end
    edge = '(' .. batch[1]
  end
end
if #found == 0 then return { 'none' } end
return { 'ok', found, 1 }
