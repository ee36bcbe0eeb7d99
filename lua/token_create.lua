-- A new key: its hash, which makes it valid. The space's list of keys names it already.
-- KEYS[1] hash   the key's data, jw:token:<sha256>
-- ARGV[1] ms     when it expires, or ''
-- ARGV[2..]      field, value, ... of the hash
-- Replies: {'ok', createdAt} | {'past'}
-- Events: none
-- Cost: 3 commands
-- include: clock
local token_key = KEYS[1]
local expires = ARGV[1]
local now = now_ms()

if expires ~= '' and tonumber(expires) <= now then return { 'past' } end
redis.call('HSET', token_key, 'createdAt', now, unpack(ARGV, 2))
if expires ~= '' then
  redis.call('HSET', token_key, 'expiresAt', expires)
  redis.call('PEXPIREAT', token_key, expires)
end
return { 'ok', now }
