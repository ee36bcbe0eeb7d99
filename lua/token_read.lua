-- What a key may do; notes that it was used, at most once a minute.
-- KEYS[1] hash   the key's data, jw:token:<sha256>
-- Replies: {'ok', {field, value, ...}}, with no fields for a key that is unknown, revoked or expired
-- Events: none
-- Cost: 2 commands; works at maxmemory
-- include: clock
local NOTE_MS = 60000
local token_key = KEYS[1]

local fields = redis.call('HGETALL', token_key)
if #fields == 0 then return { 'ok', fields } end
local now, used = now_ms(), 0
for i = 1, #fields, 2 do
  if fields[i] == 'lastUsedAt' then used = tonumber(fields[i + 1]) end
end
if now - used >= NOTE_MS then redis.pcall('HSET', token_key, 'lastUsedAt', now) end
return { 'ok', fields }
