-- message(...): what channels carry, the same JSON object everywhere:
-- {"type","jobId","jobName","status","seq","feed","at","counts","data"}; seq counts the job's events, feed the space's.
-- `data` and `counted` are JSON already.
local json_names = {}
local function message(id, job, kind, data, feed, at, counted)
  local name = json_names[job.name]
  if not name then
    name = cjson.encode(job.name)
    json_names[job.name] = name
  end
  return '{"type":"' .. kind .. '","jobId":"' .. id .. '","jobName":' .. name .. ',"status":"' .. job.status
    .. '","seq":' .. job.event_seq .. ',"feed":' .. feed .. ',"at":' .. at .. ',"counts":' .. counted .. ',"data":' .. data
    .. '}'
end
