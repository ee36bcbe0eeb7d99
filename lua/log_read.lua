-- Lines of a job's log in one direction from a seq, as they are at one moment: sealed blocks and record batches.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] none   jw:{J}:moving, which never exists
-- ARGV[1] string after | before
-- ARGV[2] int    seq that is not wanted itself; before: 0 for the end of the log
-- ARGV[3] int    lines at most, counted in whole batches and blocks
-- ARGV[4] bytes  at most, but at least one batch or block; and never more than 512 of them
-- ARGV[5] int    levels that are wanted, a bit each, 0 for all: blocks without them are passed over
-- Replies: {'ok', firstSeq, lastSeq, {first, last, ms, lines, ...}} in the order of travel, a block with 0 instead of ms, blocks
--   that were passed over with '' as lines | {'none'} without a log
-- Events: none
-- Cost: one command for each block and each 8 batches, and about 3
-- include: log_index
local log, blocks, meta = KEYS[1], KEYS[2], KEYS[3]
local forward, position = ARGV[1] == 'after', tonumber(ARGV[2])
local lines_most, bytes_most = tonumber(ARGV[3]), tonumber(ARGV[4])
local levels = tonumber(ARGV[5])
local STEP = 8
local RUNS_MOST = 512

local field = redis.call('HMGET', meta, 'firstSeq', 'lastSeq', 'index')
if not field[1] then return { 'none' } end
local first_kept, newest, index = tonumber(field[1]), tonumber(field[2]), field[3] or ''
if not forward and (position == 0 or position > newest) then position = newest + 1 end
local blocks_count = blocks_of(index)
local sealed = blocks_count > 0 and last_of(index, blocks_count) or first_kept - 1

local found, lines, bytes, full = {}, 0, 0, false

-- Adds a run and returns true, or returns false if it is too much.
local function take(first, last, at, text)
  if bytes > 0 and bytes + #text > bytes_most then
    full = true
    return false
  end
  found[#found + 1] = first
  found[#found + 1] = last
  found[#found + 1] = at
  found[#found + 1] = text
  bytes = bytes + #text
  -- The first run may begin or end in the middle of what is wanted: only its lines beyond the position count.
  if text ~= '' then
    if forward then lines = lines + last - math.max(first - 1, position) end
    if not forward then lines = lines + math.min(last + 1, position) - first end
  end
  full = lines >= lines_most or #found >= 4 * RUNS_MOST
  return true
end

-- Lua 5.1 has no bitwise `and`; many blocks have the same bits, so each combination is worked out once.
local known = {}
local function has_level(bits)
  if known[bits] == nil then
    known[bits] = levels == 0
    for bit = 0, 5 do
      local two = 2 ^ bit
      if math.floor(bits / two) % 2 == 1 and math.floor(levels / two) % 2 == 1 then known[bits] = true end
    end
  end
  return known[bits]
end

-- Blocks that follow each other and have none of the wanted levels are one run without lines.
local function read_blocks(from, to, step)
  local passed = nil
  for n = from, to, step do
    local first = n == 1 and first_kept or last_of(index, n - 1) + 1
    local last = last_of(index, n)
    if not has_level(number_at(index, (n - 1) * INDEX_RECORD + 1, 1)) then
      passed = { math.min(first, passed and passed[1] or first), math.max(last, passed and passed[2] or last) }
    else
      if passed then take(passed[1], passed[2], 0, '') end
      passed = nil
      if full or not take(first, last, 0, redis.call('LINDEX', blocks, n - 1) or '') or full then return end
    end
  end
  if passed then take(passed[1], passed[2], 0, '') end
end

-- The batch that holds a seq is the first whose id, the seq of its last line, is not below it.
local function read_batches()
  local edge = string.format('(%d-0', position)
  if not forward then
    local holder = redis.call('XRANGE', log, string.format('%d-0', position - 1), '+', 'COUNT', 1)[1]
    edge = holder and holder[1] or '+'
  end
  while not full do
    local batches
    if forward then
      batches = redis.call('XRANGE', log, edge, '+', 'COUNT', STEP)
    else
      batches = redis.call('XREVRANGE', log, edge, '-', 'COUNT', STEP)
    end
    for _, batch in ipairs(batches) do
      local last = tonumber(string.match(batch[1], '^%d+'))
      if full or not take(tonumber(batch[2][2]), last, tonumber(batch[2][4]), batch[2][6]) then return end
      edge = '(' .. batch[1]
    end
    if #batches < STEP then return end
  end
end

-- Blocks lie before batches: forwards they are read first, backwards last.
if forward then
  if position < sealed then read_blocks(holder_of(index, position + 1), blocks_count, 1) end
  if not full then read_batches() end
else
  if position > sealed + 1 then read_batches() end
  if not full and blocks_count > 0 then
    read_blocks(math.min(holder_of(index, position - 1), blocks_count), 1, -1)
  end
end
return { 'ok', first_kept, newest, found }
