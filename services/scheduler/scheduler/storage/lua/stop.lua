-- Asks the worker that runs a job to stop it.
-- ARGV: job
-- Returns 1 when some worker holds it.
local attempt = call('HGET', P .. 'j:' .. ARGV[1], 'a')
if not attempt then
  return 0
end
local worker = call('HGET', P .. 'a:' .. attempt, 'worker')
call('PUBLISH', P .. 'control', 'stop ' .. worker .. ' ' .. attempt)
return 1
