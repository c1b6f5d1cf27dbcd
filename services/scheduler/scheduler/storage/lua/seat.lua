-- A worker says which of its attempts it has set aside, and which it works on. Idempotent.
-- ARGV: worker, session, number of the former, attempts
-- Returns 'unknown' or 'replaced', or 1.
local worker = ARGV[1]
local refused = stranger(worker, ARGV[2])
if refused then
  return refused
end
local now = now_ms()
for i = 4, #ARGV do
  if call('SISMEMBER', P .. 'h:' .. worker, ARGV[i]) == 1 then
    if i < 4 + tonumber(ARGV[3]) then
      set_parked(ARGV[i], worker, now)
    else
      set_running(ARGV[i], worker, now)
    end
  end
end
return 1
