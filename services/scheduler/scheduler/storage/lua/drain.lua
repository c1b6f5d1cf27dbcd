-- Asks a connected worker to drain. Idempotent.
-- ARGV: worker
-- Returns 0 when no such worker is connected.
local worker = ARGV[1]
if call('EXISTS', P .. 'wk:' .. worker) == 0 then
  return 0
end
call('HSET', P .. 'wk:' .. worker, 'drain', '1')
call('SADD', P .. 'drains', worker)
call('PUBLISH', P .. 'control', 'drain ' .. worker)
return 1
