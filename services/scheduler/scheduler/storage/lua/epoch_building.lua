-- Stands before the scripts of a rebuild. Their arguments come as two: the rebuild's token, and
-- theirs in one string, each with a zero byte behind it (thousands of arguments are slow to send).
-- Another token, a flush or another process mean that this rebuild is over. Each step says that it
-- is still alive.
do
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local epoch = KEYS[1] .. 'epoch'
  if redis.call('GET', epoch) ~= 'building ' .. run_id .. ' ' .. ARGV[1] then
    return redis.error_reply('SUPERSEDED this rebuild is over')
  end
  redis.call('PEXPIRE', epoch, 15000)
end
local packed = ARGV[2]
local ARGV = {}
for argument in string.gmatch(packed, '(%Z*)%z') do
  ARGV[#ARGV + 1] = argument
end
-- Nobody is told of single jobs: all are told once, when the queue opens.
local QUIET = true
