-- Adds one batch of a sidecar's records to the sums of all, and moves the sidecar's mark past it:
-- both or neither, so a batch whose answer was lost is not added twice.
--
-- KEYS: sidecars (hash: sidecar -> mark, which starts with the number of its last record here),
--       hours (sorted set of hours that have sums), stream (the latest records),
--       per group: h (hash of the group's hour: label set -> n; its sums are in the hash s:HOUR:n)
-- ARGV: sidecar, number before the batch ('' for no mark), new mark, now in ms, retention in ms,
--       most label sets of an hour, most records of the stream, number of records, records...,
--       per group: start of its hour in seconds, ttl of its sums in ms,
--       label set, label set with the tenant only, label set without any, number of fields,
--       per field: name, amount
-- Returns 'ok', or the number in the mark as it is ('' for none) where that is not the one before
-- the batch: then nothing was done.
--
-- Amounts are signed 64-bit integers that pass through as text: Lua's numbers stop at 2^53.
local mark = redis.call('HGET', KEYS[1], ARGV[1])
local number = mark and string.match(mark, '^%d+') or ''
if number ~= ARGV[2] then return number end
-- First the mark: if Redis is out of memory this is refused, and nothing after it was done.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])

local now, retention, cap = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- A shorter life never replaces a longer one.
local function live(key, ttl)
  if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end

local records = tonumber(ARGV[8])
for i = 1, records do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'r', ARGV[8 + i])
end
if records > 0 then
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', (now - retention) / 1000 - 3600))
end

-- The number of a label set in its hour; past the cap that of a coarser one.
local function place(h, at)
  local n = redis.call('HGET', h, ARGV[at])
  if n then return n end
  local count, label = redis.call('HLEN', h), ARGV[at]
  if count >= cap then
    label = ARGV[at + (count >= 2 * cap and 2 or 1)]
    n = redis.call('HGET', h, label)
    if n then return n end
  end
  n = tostring(count + 1)
  redis.call('HSET', h, label, n)
  return n
end

local at = 9 + records
for g = 4, #KEYS do
  local hour, ttl, fields = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 5])
  local s = '{sluice}:l:s:' .. hour .. ':' .. place(KEYS[g], at + 2)
  for f = at + 6, at + 4 + 2 * fields, 2 do
    redis.call('HINCRBY', s, ARGV[f], ARGV[f + 1])
  end
  live(s, ttl)
  live(KEYS[g], ttl)
  redis.call('ZADD', KEYS[2], hour, hour)
  at = at + 6 + 2 * fields
end
return 'ok'
