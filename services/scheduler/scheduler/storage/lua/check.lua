-- Says only whether the queue serves.
return 1
