-- A heartbeat: extends the leases of the attempts that the stream says it holds.
-- ARGV: worker, session, lease_ms, attempts
-- Returns 'unknown' or 'replaced', or those of the attempts that the worker holds.
local refused = stranger(ARGV[1], ARGV[2])
if refused then
  return refused
end
local deadline = now_ms() + tonumber(ARGV[3])
call('ZADD', P .. 'workers', deadline, ARGV[1])
local held = {}
for i = 4, #ARGV do
  if call('SISMEMBER', P .. 'h:' .. ARGV[1], ARGV[i]) == 1 then
    held[#held + 1] = ARGV[i]
    call('ZADD', P .. 'leases', 'XX', deadline, ARGV[i])
    call('HDEL', P .. 'a:' .. ARGV[i], 'restored')
  end
end
return held
