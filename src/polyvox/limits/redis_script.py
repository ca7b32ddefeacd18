"""The script that counts leases inside a Redis server. Text; whoever runs it knows what the answers mean."""

from __future__ import annotations

GRAIN = 250
"""Milliseconds of one bucket; the script says the same."""

SCRIPT = """\
-- Leases of one deployment: every step is one run of this script. Times are whole milliseconds of the server's clock.
-- What is let through within a GRAIN is one bucket, which is forgotten when its last moment is a WINDOW ago.
--
-- KEYS[1] sorted set: lease by the time at which it ends unless it is renewed.
-- KEYS[2] hash: lease to "bucket tokens", what it counted and where.
-- KEYS[3] hash: r, t: requests and tokens of the window; o: the oldest bucket in it, n: the newest; r<bucket>,
-- t<bucket>: those of each.
-- ARGV: step, how long a lease lasts; then what the step needs.
--   take: lease, tokens, then concurrency, requests and tokens a minute, each "" for no limit.
--   change: any number of pairs, lease and what it took: a number, "" for what was estimated, "back" where nothing was
--   sent; then, behind a "renew", leases that are still held.

local leases, notes, window = KEYS[1], KEYS[2], KEYS[3]
local step, lasts = ARGV[1], tonumber(ARGV[2])
local GRAIN, WINDOW, STEP_BACK = 250, 60000, 20
local told = redis.call('TIME')
local now = told[1] * 1000 + math.floor(told[2] / 1000)
local bucket = math.floor(now / GRAIN)

local function text(number) return string.format('%.0f', number) end

local function add(where, requests, tokens)
  if requests ~= 0 then
    redis.call('HINCRBY', window, 'r', text(requests))
    redis.call('HINCRBY', window, 'r' .. text(where), text(requests))
  end
  if tokens ~= 0 then
    redis.call('HINCRBY', window, 't', text(tokens))
    redis.call('HINCRBY', window, 't' .. text(where), text(tokens))
  end
end

-- Forget the buckets whose last moment is a window ago. Returns requests, tokens and the oldest bucket that counts.
local function forget()
  local known = redis.call('HMGET', window, 'r', 't', 'o', 'n')
  local requests, tokens = tonumber(known[1]) or 0, tonumber(known[2]) or 0
  local oldest, newest = tonumber(known[3]), tonumber(known[4])
  if not oldest then return 0, 0, bucket end
  if newest > bucket and newest - bucket <= STEP_BACK then
    -- The clock was set back a little: for so long time stands still.
    bucket, now = newest, newest * GRAIN
  end
  local first = math.floor((now - WINDOW) / GRAIN)
  if newest > bucket then
    -- The clock was set back: all of it counts from now on, because nobody knows when it was.
    redis.call('DEL', window)
    add(bucket, requests, tokens)
    oldest, newest = bucket, bucket
  elseif newest < first then
    redis.call('DEL', window)
    return 0, 0, bucket
  end
  local place = oldest
  while place < first do
    local fields = {'r' .. text(place), 't' .. text(place)}
    local counted = redis.call('HMGET', window, unpack(fields))
    requests = requests - (tonumber(counted[1]) or 0)
    tokens = tokens - (tonumber(counted[2]) or 0)
    redis.call('HDEL', window, unpack(fields))
    place = place + 1
  end
  redis.call('HSET', window, 'r', text(requests), 't', text(tokens), 'o', text(place), 'n', text(newest))
  return requests, tokens, place
end

-- Leases that nobody renewed are over. One that ends later than any can was made before the clock was set back.
local function lapse()
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', text(now))) do
    redis.call('ZREM', leases, lease)
    redis.call('HDEL', notes, lease)
  end
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. text(now + lasts), '+inf')) do
    redis.call('ZADD', leases, text(now + lasts), lease)
  end
end

-- Milliseconds until so much is forgotten.
local function wait(oldest, requests, tokens)
  local place = oldest
  while place <= bucket do
    local counted = redis.call('HMGET', window, 'r' .. text(place), 't' .. text(place))
    requests = requests - (tonumber(counted[1]) or 0)
    tokens = tokens - (tonumber(counted[2]) or 0)
    if requests <= 0 and tokens <= 0 then return (place + 1) * GRAIN + WINDOW - now end
    place = place + 1
  end
  return WINDOW
end

local function keep()
  redis.call('PEXPIRE', leases, lasts + WINDOW)
  redis.call('PEXPIRE', notes, lasts + WINDOW)
  redis.call('PEXPIRE', window, WINDOW + 2 * GRAIN)
end

lapse()
local requests, tokens, oldest = forget()

if step == 'take' then
  local lease, need = ARGV[3], tonumber(ARGV[4])
  local concurrency, most_requests, most_tokens = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
  local what, limit, left = '', 0, -1
  if most_requests and requests >= most_requests then
    what, limit, left = 'requests', most_requests, wait(oldest, requests + 1 - most_requests, 0)
  end
  if most_tokens and tokens + need > most_tokens then
    local longer = wait(oldest, 0, tokens + need - most_tokens)
    if longer > left then what, limit, left = 'tokens', most_tokens, longer end
  end
  if what == '' and concurrency and redis.call('ZCARD', leases) >= concurrency then
    what, limit = 'concurrency', concurrency
  end
  if what ~= '' then return {what, limit, left} end
  redis.call('ZADD', leases, text(now + lasts), lease)
  redis.call('HSET', notes, lease, text(bucket) .. ' ' .. text(need))
  add(bucket, 1, need)
  redis.call('HSET', window, 'o', text(oldest), 'n', text(bucket))
  keep()
  return {'taken', 0, 0}
end

local at = 3
while ARGV[at] and ARGV[at] ~= 'renew' do
  local lease, took = ARGV[at], ARGV[at + 1]
  at = at + 2
  local note = redis.call('HGET', notes, lease)
  if note then
    local where, taken = string.match(note, '^(%d+) (%d+)$')
    where, taken = tonumber(where), tonumber(taken)
    if redis.call('HEXISTS', window, 'r' .. text(where)) == 1 then
      if took == 'back' then
        add(where, -1, -taken)
      elseif took ~= '' then
        add(where, 0, tonumber(took) - taken)
      end
    end
    redis.call('HDEL', notes, lease)
  end
  redis.call('ZREM', leases, lease)
end
local many = 0
for place = at + 1, #ARGV do
  redis.call('ZADD', leases, text(now + lasts), ARGV[place])
  many = many + 1
end
keep()
return {'changed', many, 0}
"""
