-- What happens by itself: attempts go on that were set aside for long enough, and others are named
-- where a change was missed.
-- ARGV: limit
resume_overdue(now_ms(), ARGV[1])
preempt()
return 1
