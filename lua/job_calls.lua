-- Calls of workers, one after another: each as the script of its verb does it, whatever became of those before it.
-- KEYS[1] hash   the space, jw:{S}:space
-- KEYS[2] none   jw:{S}:moving, which never exists
-- ARGV[1..]      per call: verb, n, and the n arguments of the verb's own script, job_<verb>.lua
-- Replies: {'ok', reply, ...} with what each verb's script replies | {'fault', text} in the place of a call that broke
-- Events: those of the verbs
-- Cost: about half the commands of the verbs' own scripts, and 20 in all; works at maxmemory
-- include: space_prefix
-- include: clock
-- include: gathering
-- include: ack_job
-- include: progress_job
-- include: checkpoint_job
-- include: event_job
-- include: keepalive_job
-- include: complete_job
-- include: fail_job
-- include: release_job
local space = space_of(KEYS[1])
local now = now_ms()
local VERBS = {
  ack = ack_job,
  progress = progress_job,
  checkpoint = checkpoint_job,
  event = event_job,
  keepalive = keepalive_job,
  complete = complete_job,
  fail = fail_job,
  release = release_job,
}

pass_maxmemory(space)
return gathering(space, function()
  local replies, met, at = { 'ok' }, {}, 1
  while ARGV[at] do
    local last = at + 1 + tonumber(ARGV[at + 1])
    local id = ARGV[at + 2]
    if met[id] then write_gathered() end
    met[id] = true
    local fine, reply = pcall(VERBS[ARGV[at]], space, now, unpack(ARGV, at + 2, last))
    if not fine then reply = { 'fault', type(reply) == 'table' and reply.err or tostring(reply) } end
    replies[#replies + 1] = reply
    at = last + 1
  end
  return replies
end)
