-- Jobs have ended: frees their slots and places and remembers for a while that they are gone.
-- ARGV: for each job: job, attempt that reported the end ('' for none), milliseconds that its
--       success took (0: nobody knows; '' for any other end)
for i = 1, #ARGV, 3 do
  local job, by, took_ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local found = call('HMGET', P .. 'j:' .. job, 'user', 'model', 'a', 'cost', 'charged')
  call('SET', P .. 'gone:' .. job, '1', 'EX', GONE_S)
  if found[1] then
    local user, cost = load_user(found[1]), tonumber(found[4])
    local timed = took_ms and (not found[3] or found[3] == by)
    if found[3] then
      take_back(found[3], found[3] ~= by)
      call('SREM', P .. 'r:' .. user.id, job)
    else
      take(user, job, found[2])
    end
    if timed and found[5] then
      settle(user, job, cost_by_time(cost, took_ms))
    elseif found[3] then
      settle(user, job, cost * done_of(job))
    end
    if timed and took_ms > 0 then
      average('mean_ms', took_ms)
      average('per_cost', took_ms / cost)
    end
    call('DEL', P .. 'j:' .. job, P .. 'p:' .. job)
    call('ZREM', P .. 'jobs', job)
    refresh(user)
    wake(user)
  end
  tell(job)
  if by ~= '' and by ~= found[3] then
    take_back(by, false)
  end
end
return 1
