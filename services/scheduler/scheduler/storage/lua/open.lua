-- The rebuild is complete: serves again, and has all replicas look again.
call('SET', P .. 'catalogue', string.format('%.0f', now_ms())) -- like none from before
call('SET', P .. 'epoch', 'open ' .. string.match(call('INFO', 'server'), 'run_id:(%x+)'))
call('PUBLISH', P .. 'control', 'opened')
return 1
