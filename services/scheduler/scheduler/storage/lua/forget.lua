-- Removes what is kept of a user of whom no job is here. Idempotent.
-- ARGV: user, limit
-- Returns jobs of the user, at most about `limit`; nothing was removed when there are some.
local id, limit = ARGV[1], tonumber(ARGV[2])
local jobs = call('ZRANGE', P .. 'uw:' .. id, 0, limit - 1)
for _, job in ipairs(call('SMEMBERS', P .. 'r:' .. id)) do
  jobs[#jobs + 1] = job
end
if #jobs == 0 and call('EXISTS', P .. 'u:' .. id) == 1 then
  -- jobs that wait for a pause to end are in no set of their user
  for _, job in ipairs(call('ZRANGE', P .. 'delayed', 0, -1)) do
    if call('HGET', P .. 'j:' .. job, 'user') == id then
      jobs[#jobs + 1] = job
    end
  end
end
if #jobs == 0 then
  call('DEL', P .. 'u:' .. id)
end
return jobs
