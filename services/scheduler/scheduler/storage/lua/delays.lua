-- Pauses: jobs that wait for a pause to end before their next try.

local function delay(job, not_before)
  call('ZADD', P .. 'delayed', not_before, job)
end

-- Puts jobs in line whose pause is over, those first that waited longest; answers how many.
local function release(now, limit)
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now, 'LIMIT', 0, limit)
  for _, job in ipairs(due) do
    call('ZREM', P .. 'delayed', job)
    local found = call('HMGET', P .. 'j:' .. job, 'user', 'model', 'order')
    local user = load_user(found[1])
    call('PERSIST', P .. 'u:' .. user.id) -- nothing else of the user may have been there
    put(user, job, found[2], found[3])
    refresh(user)
    wake(user)
  end
  return #due
end
