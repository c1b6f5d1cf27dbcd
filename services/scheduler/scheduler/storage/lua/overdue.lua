-- Jobs that no worker started in time, longest overdue first.
-- ARGV: limit
return call('ZRANGEBYSCORE', P .. 'startby', '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
