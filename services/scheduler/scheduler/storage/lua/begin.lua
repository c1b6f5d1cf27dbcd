-- Begins a rebuild, unless the queue is open or another replica fills it.
-- ARGV: token, '1' when nobody else can be at it (the lock is held)
-- Returns 'open', 'busy' or 'begun'.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local key = KEYS[1] .. 'epoch'
local epoch = redis.call('GET', key) or ''
if epoch == 'open ' .. run_id then
  return 'open'
end
local building = 'building ' .. run_id .. ' '
if string.sub(epoch, 1, #building) == building and ARGV[2] ~= '1' then
  return 'busy'
end
redis.call('SET', key, building .. ARGV[1], 'PX', 15000)
return 'begun'
