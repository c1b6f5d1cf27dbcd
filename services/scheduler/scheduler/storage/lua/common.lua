-- Stands before every script of this folder, with the other shared parts after it.
-- KEYS[1] is the prefix of the lane's keys with its hash tag, "easel:{lane}:"; every key is built from
-- it, so all of them lie in one slot of a cluster.
--
--   clock         hash    v: virtual time over tiers; t:<tier>: virtual time inside a tier;
--                         f:<tier>: finish tag of a tier; entry: counter of entries into a set
--   tiers         zset    tiers with a user who may start a job, by start tag
--   weights       hash    weight by tier, as last written: for estimates
--   tu:<tier>     zset    "<entry>:<user>" of all users who may start a job, by start tag
--   tm:<tier>:<m> zset    the same users, those with a waiting job of model m
--   tj:<tier>     zset    waiting jobs of the tier, by order
--   u:<user>      hash    ver, pri, wt, lim; f: finish tag; s, entry: while in the tier's set;
--                         passed: cost of the jobs that passed it by meanwhile
--   um:<user>     set     models of the user's waiting jobs
--   w:<user>/<m>  zset    the user's waiting jobs of model m, by order (a user id has no slash)
--   uw:<user>     zset    all waiting jobs of the user, by order
--   r:<user>      set     running jobs of the user: a set, since counters drift
--   j:<job>       hash    user, model, cost, order, n: attempts so far; a: attempt that runs;
--                         charged, tier, wt: what its latest attempt was charged, and where;
--                         victim: the attempt that was last named for it
--   jobs          zset    all jobs, by place
--   delayed       zset    jobs that wait for a pause to end before their next try, by its end (ms);
--                         until then they are in no line
--   startby       zset    jobs never started, by the time (ms) at which they fail
--   a:<attempt>   hash    job, user, worker, n, at (ms), pri; restored: its lease was made up after a
--                         loss; class, seat: where it is listed as one that may be set aside; state:
--                         parking, parked, resuming, or none; parked_at; parks, parked_ms: how often
--                         and how long it was parked
--   leases        zset    attempts that run, by deadline (ms, this server's clock)
--   h:<worker>    set     attempts of a worker
--   wk:<worker>   hash    session, slots, body (what the worker said of itself); drain: it was
--                         told to; class; parks, park_ms: how often an attempt of it may be set
--                         aside, and how long at a time; idle: it has asked and got too little
--   workers       zset    connected workers, by deadline (ms)
--   drains        set     workers that were told to drain and have not said so yet
--   class:<c>     set     the models of a class of workers
--   members:<c>   set     the workers of the class
--   seats:<c>     zset    "<parked_ms>:<reversed at>:<attempt>" of attempts of those workers that may
--                         be set aside, by priority; seated: the classes that have some
--   idle:<c>      set     workers of the class that have room; idlers: the classes that have some
--   parked:<w>    zset    attempts that worker w has set aside, by when (ms); 0: it is about to
--   resumes       zset    those set aside, by the time (ms) at which they go on in any case
--   asked         zset    those that w was told to set aside or go on with, by when (ms) it was told
--   catalogue     string  changes whenever some worker's models may have
--   gone:<job>    string  the job has ended: a late admission of it is ignored
--   p:<job>       string  last progress
--   pace          hash    mean_ms, per_cost, slots
--   epoch         string  whether all this may be believed: see epoch_open.lua
--   survey        hash    how far the comparison with the database has come
--
-- Channels: wake (a model's key), control (a verb, a worker, an attempt;
-- "drain <worker>", "opened"), job:<job>.

local P = KEYS[1]
local call = redis.call

-- Exact: reading it back gives the same number.
local function num(value)
  return string.format('%.17g', value)
end

local function now_ms()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function tell(job)
  if not QUIET then
    call('PUBLISH', P .. 'job:' .. job, '')
  end
end
