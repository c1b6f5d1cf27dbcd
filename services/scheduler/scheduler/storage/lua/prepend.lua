-- Gives jobs another order among those of their user. Idempotent.
-- ARGV: job, order for each
for i = 1, #ARGV, 2 do
  local job, order = ARGV[i], ARGV[i + 1]
  local found = call('HMGET', P .. 'j:' .. job, 'user', 'model')
  if found[1] then
    local user = load_user(found[1])
    call('HSET', P .. 'j:' .. job, 'order', order)
    -- XX: a job that does not wait goes there when it is back in line
    call('ZADD', P .. 'w:' .. user.id .. '/' .. found[2], 'XX', order, job)
    call('ZADD', P .. 'uw:' .. user.id, 'XX', order, job)
    call('ZADD', P .. 'tj:' .. user.pri, 'XX', order, job)
    tell(job)
  end
end
return 1
