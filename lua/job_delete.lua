-- Everything of one ended job in its space. Its log goes after: see app/jobs/deletion_and_retention.py.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- Replies: {'ok'} | {'no_job'} | {'state', status}
-- Events: none
-- Cost: about 25 commands; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: job
-- include: remove
local space = space_of(KEYS[1])
local id = ARGV[1]
local now = now_ms()

local job = read_job(space, id)
if not job then return { 'no_job' } end
if not has_ended(job.status) then return { 'state', job.status } end

remove(space, id, job, now)
settle(space)
return { 'ok' }
