-- One batch of lines at the end of a job's log: their seqs, the record batches, and the hint to whoever follows.
-- KEYS[1] stream the log, jw:{J}:log
-- KEYS[2] list   jw:{J}:log:blocks
-- KEYS[3] hash   jw:{J}:log:meta
-- KEYS[4] string jw:{J}:log:gone, there while the job's deletion is fresh
-- KEYS[5] none   jw:{J}:moving, which never exists
-- ARGV[1] 0|1    whether the job is known to exist: without it, a log is not begun
-- ARGV[2] string channel of the hint, jw:{J}:log:live
-- ARGV[3] int    lines that are kept
-- ARGV[4] bytes  that are kept
-- ARGV[5] string '', or of the Idempotency-Key: digests, lines and cuts, as include/log_keys.lua has them (30 bytes)
-- ARGV[6] string bucket of the key, 000 to fff
-- ARGV[7] int    parts
-- ARGV[8..]      per part two: how many lines, and the JSON array of them
-- Replies: {'ok', first seq, last seq, time in ms, 1 if the log has a time to live else 0, lines and bytes
--   that are not sealed, bytes in all} | {'again', record} | {'mismatch'} | {'new'} | {'no_job'}
-- Events: on the channel, 'first last ms', and ' <JSON array>' when it is one part of at most 4 KiB
-- Cost: one command for each part, and about 7; two for each block or batch that is dropped, up to 16 more than
--   there are parts
-- include: clock
-- include: log_drop
-- include: log_batch_keys
local log, blocks, meta, gone = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local known, channel = ARGV[1] == '1', ARGV[2]
local lines_most, bytes_most = tonumber(ARGV[3]), tonumber(ARGV[4])
local key, bucket, parts = ARGV[5], ARGV[6], tonumber(ARGV[7])
local now = now_ms()
local now_s = math.floor(now / 1000)
local SMALL_BYTES = 4096

if redis.call('EXISTS', gone) == 1 then return { 'no_job' } end
local field = redis.call('HMGET', meta, 'lastSeq', 'firstSeq', 'bytes', 'sealed', 'hot')
if not field[1] and not known then return { 'new' } end
local before, first_kept, bytes = tonumber(field[1] or 0), tonumber(field[2] or 1), tonumber(field[3] or 0)
local sealed, hot = tonumber(field[4] or 0), tonumber(field[5] or 0)
local keys = nil
if key ~= '' then
  keys = read_keys(meta)
  local record = find_key(meta, keys, string.sub(key, 1, 10), bucket, now_s)
  if record and string.sub(record, 11, 26) ~= string.sub(key, 11, 26) then return { 'mismatch' } end
  if record then return { 'again', record } end
end

local last = before
for i = 0, parts - 1 do
  local lines, text = tonumber(ARGV[8 + 2 * i]), ARGV[9 + 2 * i]
  redis.call('XADD', log, string.format('%d-0', last + lines), 'first', last + 1, 'at', now, 'lines', text)
  last = last + lines
  bytes, hot = bytes + #text, hot + #text
end
-- A log whose job has ended lives as long as its meta: XADD may just have made the stream anew, without an end.
local ttl_ms = redis.call('PTTL', meta)
if ttl_ms > 0 then redis.call('PEXPIRE', log, ttl_ms) end
if keys then keep_key(meta, keys, key, bucket, before + 1, now_s) end
redis.call('HSET', meta, 'lastSeq', last, 'firstSeq', first_kept, 'bytes', bytes, 'sealed', sealed, 'hot', hot)
if last - first_kept >= lines_most or bytes > bytes_most then
  local index = redis.call('HGET', meta, 'index') or ''
  local kept = { first = first_kept, bytes = bytes, sealed = sealed, hot = hot, index = index }
  for _ = 1, parts + 16 do
    if last - kept.first < lines_most and kept.bytes <= bytes_most then break end
    if not drop_oldest(log, blocks, kept, last) then break end
  end
  bytes, sealed, hot = kept.bytes, kept.sealed, kept.hot
  redis.call('HSET', meta, 'firstSeq', kept.first, 'bytes', bytes, 'sealed', sealed, 'hot', hot, 'index', kept.index)
end

if parts > 0 then
  local hint = string.format('%d %d %d', before + 1, last, now)
  if parts == 1 and #ARGV[9] <= SMALL_BYTES then hint = hint .. ' ' .. ARGV[9] end
  redis.call('PUBLISH', channel, hint)
end
return { 'ok', before + 1, last, now, ttl_ms > 0 and 1 or 0, last - sealed, hot, bytes }
