-- A worker that came back still holds an attempt: it keeps it unless a later one was started, the
-- job has ended, or the user's limit is taken by others.
-- ARGV: session, lease_ms, then the 16 fields of admit.lua with the attempt's own number as n
-- Returns 1 when the worker keeps it.
local session, lease_ms = ARGV[1], tonumber(ARGV[2])
local job, model, number, attempt, worker = ARGV[3], ARGV[5], ARGV[9], ARGV[15], ARGV[16]
if stranger(worker, session) or call('EXISTS', P .. 'gone:' .. job) == 1 then
  return 0
end
local user = entitle(ARGV[4], ARGV[11], ARGV[12], ARGV[13], ARGV[14])
local found = call('HMGET', P .. 'j:' .. job, 'a', 'n', 'charged')
local deadline = now_ms() + lease_ms
local kept = false
if found[1] == attempt and call('HGET', P .. 'a:' .. attempt, 'worker') == worker then
  call('ZADD', P .. 'leases', deadline, attempt)
  call('HDEL', P .. 'a:' .. attempt, 'restored')
  kept = true
elseif found[1] == attempt then
  take_back(attempt, false)
  lend(attempt, job, user, worker, number, ARGV[17], deadline)
  kept = true
elseif not found[1] and tonumber(found[2] or '0') <= tonumber(number) and may_run(user) then
  if found[2] then
    take(user, job, model)
    call('PERSIST', P .. 'u:' .. user.id) -- it may have been paused, and nothing else there
  else
    new_job(job, user, model, ARGV[6], ARGV[7], ARGV[8], number)
  end
  lend(attempt, job, user, worker, number, ARGV[17], deadline)
  if not found[3] then
    charge(job, user, '0')
  end
  tell(job)
  kept = true
end
refresh(user)
return kept and 1 or 0
