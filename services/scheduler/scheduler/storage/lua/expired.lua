-- Claims whose lease has run out, oldest first; forgets workers that fell silent.
-- ARGV: limit
local now = now_ms()
for _, worker in ipairs(call('ZRANGEBYSCORE', P .. 'workers', '-inf', now, 'LIMIT', 0, ARGV[1])) do
  dismiss(worker)
end
local claims = {}
for _, attempt in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local job = call('HGET', P .. 'a:' .. attempt, 'job')
  if job and call('HGET', P .. 'j:' .. job, 'a') == attempt then
    add_claim(claims, attempt)
  else
    take_back(attempt, true)
  end
end
return claims
