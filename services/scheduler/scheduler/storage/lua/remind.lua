-- Says again to workers what they were told and have not answered: signals may be lost.
for _, worker in ipairs(call('SMEMBERS', P .. 'drains')) do
  call('PUBLISH', P .. 'control', 'drain ' .. worker)
end
remind(now_ms(), 200)
return 1
