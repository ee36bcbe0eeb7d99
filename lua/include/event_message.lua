-- message(...): what channels carry, the same JSON object everywhere:
-- {"type","jobId","jobName","status","seq","feed","at","counts","data"}; seq counts the job's events, feed the space's.
-- `data` and `counted` are JSON already.
local function message(id, job, kind, data, feed, now, counted)
  return '{"type":"' .. kind .. '","jobId":"' .. id .. '","jobName":' .. cjson.encode(job.name)
    .. ',"status":"' .. job.status .. '","seq":' .. job.event_seq .. ',"feed":' .. feed .. ',"at":' .. now
    .. ',"counts":' .. counted .. ',"data":' .. data .. '}'
end
