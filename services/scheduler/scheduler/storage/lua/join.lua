-- A worker's stream introduces itself (mode 'join'), or says something new ('update').
-- ARGV: mode, worker, session, ttl_ms, slots, body, draining ('1' or ''), how often an attempt of it
--       may be set aside ('0': it cannot), and how long (ms) at a time, models that it can draw with
-- Returns 'unknown' or 'replaced', or the claims that the worker holds.
local mode, worker, session = ARGV[1], ARGV[2], ARGV[3]
if mode == 'update' then
  local refused = stranger(worker, session)
  if refused then
    return refused
  end
end
call('HSET', P .. 'wk:' .. worker, 'session', session, 'slots', ARGV[5], 'body', ARGV[6])
call('ZADD', P .. 'workers', now_ms() + tonumber(ARGV[4]), worker)
if ARGV[7] == '1' then
  call('SREM', P .. 'drains', worker)
elseif call('HEXISTS', P .. 'wk:' .. worker, 'drain') == 1 then
  call('SADD', P .. 'drains', worker)
end
enter_class(worker, 10)
if ARGV[7] == '1' then
  set_idle(worker, false)
end
if ARGV[8] == '0' or ARGV[7] == '1' then
  call('HDEL', P .. 'wk:' .. worker, 'parks', 'park_ms')
else
  call('HSET', P .. 'wk:' .. worker, 'parks', ARGV[8], 'park_ms', ARGV[9])
end
list_all(worker)
call('INCR', P .. 'catalogue')
count_slots()
local claims = {}
for _, attempt in ipairs(call('SMEMBERS', P .. 'h:' .. worker)) do
  add_claim(claims, attempt)
end
return claims
