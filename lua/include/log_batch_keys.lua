-- The Idempotency-Keys of a job's batches, in its log:meta: small each, found in a few reads, pruned by the slice.
-- A record has 40 bytes: key digest (10), body digest (16), lines (2), cut messages (2), first seq (6), time in s (4),
-- numbers big-endian. Records lie in slices by time of arrival, in one of 4096 buckets by digest: field
-- 'k<slice>:<bucket>'. 'keys' holds 'slice count begun oldest', 'k<slice>' when a slice was closed, in s.
local RECORD = 40
local SLICE_KEYS = 65536
local SLICE_S = 21600
local SLICES = 16
local KEPT_S = 86400
local BUCKETS = 4096

-- big_endian(number, bytes): the number in that many bytes.
local function big_endian(number, bytes)
  local out = {}
  for i = bytes, 1, -1 do
    out[i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(out)
end

-- read_keys(meta): where the next record goes.
local function read_keys(meta)
  local slice, count, begun, oldest = string.match(redis.call('HGET', meta, 'keys') or '0 0 0 0', '(%d+) (%d+) (%d+) (%d+)')
  return { slice = tonumber(slice), count = tonumber(count), begun = tonumber(begun), oldest = tonumber(oldest) }
end

-- find_key(...): the newest record of this key digest that is not older than KEPT_S, or nil.
local function find_key(meta, keys, digest, bucket, now_s)
  local fields = {}
  for slice = keys.oldest, keys.slice do fields[#fields + 1] = 'k' .. slice .. ':' .. bucket end
  local since = big_endian(now_s - KEPT_S, 4)
  local found = nil
  for _, records in ipairs(redis.call('HMGET', meta, unpack(fields))) do
    for at = 1, #(records or ''), RECORD do
      if string.sub(records, at, at + 9) == digest and string.sub(records, at + 36, at + 39) > since then
        found = string.sub(records, at, at + RECORD - 1)
      end
    end
  end
  return found
end

-- drop_slice(meta, slice): all its buckets, and when it was closed.
local function drop_slice(meta, slice)
  for start = 0, BUCKETS - 1, 1024 do
    local fields = {}
    for bucket = start, start + 1023 do fields[#fields + 1] = string.format('k%d:%03x', slice, bucket) end
    redis.call('HDEL', meta, unpack(fields))
  end
  redis.call('HDEL', meta, 'k' .. slice)
end

-- begin_slice(...): closes the full or old one; drops up to two whose keys are all too old, or that are too many.
local function begin_slice(meta, keys, now_s)
  redis.call('HSET', meta, 'k' .. keys.slice, now_s)
  keys.slice, keys.count = keys.slice + 1, 0
  for _ = 1, 2 do
    local closed = tonumber(redis.call('HGET', meta, 'k' .. keys.oldest) or now_s)
    if now_s - closed > KEPT_S or keys.slice - keys.oldest >= SLICES then
      drop_slice(meta, keys.oldest)
      keys.oldest = keys.oldest + 1
    end
  end
end

-- keep_key(...): the record of a batch whose first line has seq `first`; `head` are its first 30 bytes.
local function keep_key(meta, keys, head, bucket, first, now_s)
  if keys.count >= SLICE_KEYS or (keys.count > 0 and now_s - keys.begun >= SLICE_S) then
    begin_slice(meta, keys, now_s)
  end
  if keys.count == 0 then keys.begun = now_s end
  local field = 'k' .. keys.slice .. ':' .. bucket
  local record = head .. big_endian(first, 6) .. big_endian(now_s, 4)
  redis.call('HSET', meta, field, (redis.call('HGET', meta, field) or '') .. record,
    'keys', string.format('%d %d %d %d', keys.slice, keys.count + 1, keys.begun, keys.oldest))
end
