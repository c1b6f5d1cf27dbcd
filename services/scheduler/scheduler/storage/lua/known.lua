-- Jobs in line or running by place.
-- ARGV: after, upto, limit
return call('ZRANGEBYSCORE', P .. 'jobs', '(' .. ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
