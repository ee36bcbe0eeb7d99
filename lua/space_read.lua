-- One space and its jobs by status, as they are at one moment.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- Replies: {'ok', {field, value, ...}, counts (a JSON object)} | {'no_space'}
-- Events: none
-- Cost: 8 commands
-- include: space_prefix
-- include: job_counts
local space_key = KEYS[1]
local space = space_of(space_key)

if redis.call('HEXISTS', space_key, 'createdAt') == 0 then return { 'no_space' } end
return { 'ok', redis.call('HGETALL', space_key), job_counts(space) }
