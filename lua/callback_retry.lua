-- Somebody wants the callback of an ended job once more: due now, with a schedule that begins anew.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1] id     the job
-- Replies: {'ok', status, moment of the try} | {'no_job'} | {'state', status} | {'no_callback'} without a callbackUrl
-- Events: none
-- Cost: 6 commands
-- include: space_prefix
-- include: clock
-- include: statuses
-- include: job
-- include: callback_outbox
local space = space_of(KEYS[1])
local id = ARGV[1]
local now = now_ms()

local job = read_job(space, id)
if not job then return { 'no_job' } end
if not has_ended(job.status) then return { 'state', job.status } end
local due = arm(space, id, job, now)
if not due then return { 'no_callback' } end
return { 'ok', job.status, due }
