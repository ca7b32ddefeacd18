"""The script that counts budgets inside a Redis server. Text; whoever runs it knows what the answers mean."""

from __future__ import annotations

SCRIPT = """\
-- Budgets in Redis: every step is one run of this script, so nothing comes between reading and writing. Numbers of Lua
-- are doubles and hold whole numbers up to 2^53 only, and pico-dollars go to 2^63: so money is never a number here. It
-- is text, added by HINCRBY, which counts in 64 bits, and compared as text. Times are microseconds, below 2^53.
--
-- KEYS[1]: the prefix of all keys, with a hash tag, so that they live in one slot.
-- ARGV: step, now or "" for the server's clock, lease, "count" or "release", how long to keep what was left behind,
-- how long to remember what was settled; then what the step needs.
--
-- a:<account> hash: used (spent and reserved), reserved, estimated, unpriced.  d:<account> sorted set: attempt by the
-- time at which something is due.  t:<attempt> hash: account to "state sure amount".  f:<family> set of accounts.
-- States: R reserved, S settled, L left behind and counted, G gone. Sure: 0 unpriced, 1 estimated, 2 exact.

local P, step = KEYS[1], ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
local lease, policy, kept, remembered = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local DAY, MOST, LARGEST = 86400000000, 5000, '9223372036854775807'

local function text(number) return string.format('%.0f', number) end

local function add(account, field, amount, sign)
  if amount == '0' then return end
  local done = redis.pcall('HINCRBY', P .. 'a:' .. account, field, sign .. amount)
  -- More than fits stays at the most.
  if type(done) == 'table' and done.err then redis.call('HSET', P .. 'a:' .. account, field, LARGEST) end
end

local function put(account, state, sure, amount, sign)
  if state == 'G' then return end
  add(account, 'used', amount, sign)
  if state == 'R' then
    add(account, 'reserved', amount, sign)
  elseif sure == '1' then
    add(account, 'estimated', amount, sign)
  elseif sure == '0' then
    add(account, 'unpriced', '1', sign)
  end
end

-- Whether one amount is greater than another; both without leading zeros, and only the second may be negative.
local function greater(a, b)
  if string.sub(b, 1, 1) == '-' then return true end
  if #a ~= #b then return #a > #b end
  return a > b
end

local function read(attempt, account)
  local entry = redis.call('HGET', P .. 't:' .. attempt, account)
  if not entry then return nil end
  return string.match(entry, '^(%a) (%d) (%d+)$')
end

local function write(attempt, account, state, sure, amount)
  redis.call('HSET', P .. 't:' .. attempt, account, state .. ' ' .. sure .. ' ' .. amount)
end

-- Keep a key for so long at least; it never gets less.
local function keep(key, microseconds)
  local left = redis.call('PTTL', key)
  local wanted = math.ceil(microseconds / 1000)
  if left == -1 or left < wanted then redis.call('PEXPIRE', key, wanted) end
end

-- How long an account may be left alone before all of it is over; nil for ever.
local function life(claim)
  if claim.span then return lease + claim.span + DAY end
  if claim.till then return math.max(claim.till - now, 0) + lease + kept end
  return nil
end

local function touch(claim)
  local long = life(claim)
  local keys = { P .. 'a:' .. claim.account, P .. 'd:' .. claim.account, P .. 'f:' .. claim.family }
  redis.call('HSETNX', keys[1], 'used', '0')
  redis.call('SADD', keys[3], claim.account)
  if long then for _, key in ipairs(keys) do keep(key, long) end end
end

local function sums(account)
  local found = redis.call('HMGET', P .. 'a:' .. account, 'used', 'reserved', 'estimated', 'unpriced')
  for place = 1, 4 do found[place] = found[place] or '0' end
  return found
end

-- Forget what a rolling window left behind, then take up what nobody settled. Gives used and reserved in between.
local function sweep(claim)
  local account, due, left = claim.account, P .. 'd:' .. claim.account, {}
  for _, attempt in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, MOST)) do
    local state, sure, amount = read(attempt, account)
    if state == 'R' then
      left[#left + 1] = { attempt, sure, amount }
    else
      redis.call('ZREM', due, attempt)
      if state == 'S' or state == 'L' then
        put(account, state, sure, amount, '-')
        if state == 'L' then
          write(attempt, account, 'G', sure, amount)
        else
          redis.call('HDEL', P .. 't:' .. attempt, account)
        end
      end
    end
  end
  local before = sums(account)
  for _, entry in ipairs(left) do
    local attempt, sure, amount = entry[1], entry[2], entry[3]
    put(account, 'R', sure, amount, '-')
    if policy == 'release' then
      write(attempt, account, 'G', sure, amount)
      redis.call('ZREM', due, attempt)
    else
      write(attempt, account, 'L', sure, amount)
      put(account, 'L', sure, amount, '')
      if claim.span then
        redis.call('ZADD', due, text(now + claim.span), attempt)
      else
        redis.call('ZREM', due, attempt)
      end
    end
    keep(P .. 't:' .. attempt, kept + 2 * (claim.span or 0) + lease + DAY)
  end
  return before
end

local function claims_from(place)
  local claims, longest, ever = {}, 0, false
  while ARGV[place] do
    local claim = {
      account = ARGV[place], family = ARGV[place + 1], room = ARGV[place + 2],
      span = tonumber(ARGV[place + 3]), till = tonumber(ARGV[place + 4]),
    }
    claims[#claims + 1] = claim
    longest = math.max(longest, claim.span or 0)
    if not claim.span and not claim.till then ever = true end
    place = place + 5
  end
  return claims, longest, ever
end

-- For each claim: its account, used and reserved before, and after.
local function changes(claims, befores)
  local told = {}
  for place, claim in ipairs(claims) do
    local after = sums(claim.account)
    told[place] = { claim.account, befores[place][1], befores[place][2], after[1], after[2] }
  end
  return told
end

local steps = {}

-- attempt, amount, sure, then claims
function steps.reserve()
  local attempt, amount, sure = ARGV[7], ARGV[8], ARGV[9]
  local all, longest, ever = claims_from(10)
  local name = P .. 't:' .. attempt
  local claims, places, befores = {}, {}, {}
  for place, claim in ipairs(all) do
    if redis.call('HEXISTS', name, claim.account) == 0 then
      claims[#claims + 1], places[#claims + 1] = claim, place - 1
    end
  end
  for place, claim in ipairs(claims) do befores[place] = sweep(claim) end
  for place, claim in ipairs(claims) do
    local found = sums(claim.account)
    if greater(found[1], claim.room) then
      local entries = {}
      if claim.span then
        local due = redis.call('ZRANGE', P .. 'd:' .. claim.account, 0, 999, 'WITHSCORES')
        for at = 1, #due, 2 do
          local state, _, its = read(due[at], claim.account)
          if state == 'S' or state == 'L' then entries[#entries + 1] = { text(tonumber(due[at + 1])), its } end
        end
      end
      return { 'refused', changes(claims, befores), places[place], found, entries, text(now) }
    end
  end
  for _, claim in ipairs(claims) do
    put(claim.account, 'R', sure, amount, '')
    write(attempt, claim.account, 'R', sure, amount)
    redis.call('ZADD', P .. 'd:' .. claim.account, text(now + lease), attempt)
    touch(claim)
  end
  -- It outlives every account that still has it to do with; in an account for all time it waits for ever.
  if not ever then keep(name, kept + 2 * (lease + longest) + DAY) end
  return { 'granted', changes(claims, befores) }
end

-- attempt, what was spent or "", then claims
function steps.settle()
  local attempt, actual = ARGV[7], ARGV[8]
  local claims, longest = claims_from(9)
  local befores, done = {}, 0
  for place, claim in ipairs(claims) do
    local account = claim.account
    befores[place] = sweep(claim)
    local state, sure, amount = read(attempt, account)
    if state and state ~= 'S' then
      put(account, state, sure, amount, '-')
      if actual ~= '' then amount, sure = actual, '2' end
      put(account, 'S', sure, amount, '')
      write(attempt, account, 'S', sure, amount)
      if claim.span then
        redis.call('ZADD', P .. 'd:' .. account, text(now + claim.span), attempt)
      else
        redis.call('ZREM', P .. 'd:' .. account, attempt)
      end
      done = 1
    end
    touch(claim)
  end
  if done == 1 then
    local long = remembered
    if longest > 0 then long = 2 * (lease + longest) + DAY end
    redis.call('PEXPIRE', P .. 't:' .. attempt, math.ceil(long / 1000))
  end
  return { done, changes(claims, befores) }
end

-- attempt, then claims
function steps.refund()
  local attempt = ARGV[7]
  local claims = claims_from(8)
  local befores, done = {}, 0
  for place, claim in ipairs(claims) do
    local account = claim.account
    befores[place] = sweep(claim)
    local state, sure, amount = read(attempt, account)
    if state and state ~= 'S' then
      put(account, state, sure, amount, '-')
      redis.call('HDEL', P .. 't:' .. attempt, account)
      redis.call('ZREM', P .. 'd:' .. account, attempt)
      done = 1
    end
    touch(claim)
  end
  return { done, changes(claims, befores) }
end

-- the most accounts of each family, then claims that stand for families
function steps.look()
  local most = tonumber(ARGV[7])
  local found = {}
  for _, claim in ipairs((claims_from(8))) do
    local family = P .. 'f:' .. claim.family
    for _, account in ipairs(redis.call('SRANDMEMBER', family, most)) do
      if redis.call('EXISTS', P .. 'a:' .. account) == 0 then
        redis.call('SREM', family, account)
      else
        sweep({ account = account, family = claim.family, span = claim.span, till = claim.till })
        local its = sums(account)
        found[#found + 1] = { account, its[1], its[2], its[3], its[4] }
      end
    end
  end
  return found
end

return steps[step]()
"""
