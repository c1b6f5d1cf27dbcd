-- Jobs have ended: frees their slots and places and remembers for a while that they are gone.
-- ARGV: attempt that reported the end ('' for none), milliseconds that it took (0: unknown), jobs
local by, took_ms = ARGV[1], tonumber(ARGV[2])

local function average(field, value)
  local old = call('HGET', P .. 'pace', field)
  local new = old and tonumber(old) * 0.9 + value * 0.1 or value
  call('HSET', P .. 'pace', field, num(new))
end

for i = 3, #ARGV do
  local job = ARGV[i]
  local found = call('HMGET', P .. 'j:' .. job, 'user', 'model', 'a', 'cost')
  call('SET', P .. 'gone:' .. job, '1', 'EX', GONE_S)
  if found[1] then
    local user = load_user(found[1])
    if found[3] then
      take_back(found[3], found[3] ~= by)
      call('SREM', P .. 'r:' .. user.id, job)
    else
      take(user, job, found[2])
    end
    if took_ms > 0 then
      average('mean_ms', took_ms)
      average('per_cost', took_ms / tonumber(found[4]))
    end
    call('DEL', P .. 'j:' .. job, P .. 'p:' .. job)
    call('ZREM', P .. 'jobs', job)
    refresh(user)
    wake(user)
  end
  tell(job)
end
if by ~= '' then
  take_back(by, false)
end
return 1
