-- Jobs under a lease, those that run out first first.
-- ARGV: limit
local jobs = {}
for _, attempt in ipairs(call('ZRANGE', P .. 'leases', 0, ARGV[1] - 1)) do
  jobs[#jobs + 1] = call('HGET', P .. 'a:' .. attempt, 'job')
end
return jobs
