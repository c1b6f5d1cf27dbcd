-- Stands before the scripts of a rebuild, whose token is their last argument. Another token, a
-- flush or another process mean that this rebuild is over. Each step says that it is still alive.
do
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local token = table.remove(ARGV)
  local epoch = KEYS[1] .. 'epoch'
  if redis.call('GET', epoch) ~= 'building ' .. run_id .. ' ' .. token then
    return redis.error_reply('SUPERSEDED this rebuild is over')
  end
  redis.call('PEXPIRE', epoch, 15000)
end
