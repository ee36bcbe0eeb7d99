-- What log:meta says of the sealed blocks: field 'index', a record of 11 bytes for each item of log:blocks in the same
-- order: bit of each level that occurs (1 byte), seq of the last line (6), bytes of the lines as they were stored (4).
local INDEX_RECORD = 11

-- number_at(text, at, bytes): the big-endian number there.
local function number_at(text, at, bytes)
  local number = 0
  for i = at, at + bytes - 1 do number = number * 256 + string.byte(text, i) end
  return number
end

-- blocks_of(index): how many blocks there are.
local function blocks_of(index) return #index / INDEX_RECORD end

-- last_of(index, n): the seq of the last line of the n-th block, counted from 1.
local function last_of(index, n) return number_at(index, (n - 1) * INDEX_RECORD + 2, 6) end

-- stored_of(index, n): the bytes of its lines as they were stored.
local function stored_of(index, n) return number_at(index, (n - 1) * INDEX_RECORD + 8, 4) end

-- holder_of(index, seq): the first block that ends at this seq or later; one more than there are, without such a block.
local function holder_of(index, seq)
  local low, high = 1, blocks_of(index) + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if last_of(index, middle) < seq then low = middle + 1 else high = middle end
  end
  return low
end
