-- The attempt no longer runs: its job goes back to its old place, unless another attempt has it.
-- ARGV: attempt, job, stop ('1': tell the worker), the time (ms) before which it is not tried again
-- Returns 1 when the job went back.
local attempt, job = ARGV[1], ARGV[2]
local found = call('HMGET', P .. 'j:' .. job, 'user', 'model', 'order', 'a', 'cost')
take_back(attempt, ARGV[3] == '1')
if not found[1] or found[4] ~= attempt then
  return 0
end
local user = load_user(found[1])
call('HDEL', P .. 'j:' .. job, 'a')
call('SREM', P .. 'r:' .. user.id, job)
settle(user, job, tonumber(found[5]) * done_of(job))
call('DEL', P .. 'p:' .. job)
if tonumber(ARGV[4]) > now_ms() then
  delay(job, ARGV[4])
else
  put(user, job, found[2], found[3])
end
refresh(user)
wake(user)
tell(job)
preempt()
return 1
