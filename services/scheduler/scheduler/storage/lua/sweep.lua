-- Removes keys that are left from before.
-- ARGV: keys
for i = 1, #ARGV do
  if ARGV[i] ~= P .. 'epoch' then
    call('UNLINK', ARGV[i])
  end
end
return 1
