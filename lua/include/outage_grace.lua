-- An outage costs no attempt: a lease that ended in one, or just after it, before its worker could come back, gets a grace
-- from the end of the outage.
-- GRACE_MS is the grace at most; an outage that begins within it is one with the outage before.
local GRACE_MS = 10000

-- graced_till(job, deadline, began, ended): until when the latest outage keeps a job whose lease ended at `deadline`; 0
-- for one that it does not keep. `began` is nil without an outage.
local function graced_till(job, deadline, began, ended)
  if not began or deadline < began then return 0 end
  return ended + math.min(GRACE_MS, job.timeout_ms)
end
