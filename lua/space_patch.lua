-- Change what is set for a space: fields of its hash, and the secrets that sign its callbacks.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] string a fresh secret that becomes the first, the first before it the second; or ''
-- ARGV[2] 0|1    whether all secrets but the first go
-- ARGV[3..]      field, value, ...; an empty value removes the field
-- Replies: {'ok'} | {'no_space'}
-- Events: none
-- Cost: 3 commands, and one a field
local space_key = KEYS[1]
local fresh, drop_old = ARGV[1], ARGV[2] == '1'

if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', space_key, ARGV[i])
  else
    redis.call('HSET', space_key, ARGV[i], ARGV[i + 1])
  end
end
local first = string.match(redis.call('HGET', space_key, 'webhookSecrets') or '', '^%S+')
if drop_old and first then redis.call('HSET', space_key, 'webhookSecrets', first) end
if fresh ~= '' then redis.call('HSET', space_key, 'webhookSecrets', first and fresh .. ' ' .. first or fresh) end
return { 'ok' }
