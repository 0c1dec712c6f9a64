-- Decides about one plan and reserves all its charges, or none.
--
-- KEYS: r (which counters the request's reservation lies on), then per slot: c (hash: u used,
--       r reserved, i:ID what ID reserved), x (sorted set: ID by the moment its reservation lapses)
-- ARGV: id, now_ms, lapses_ms, last (1/0), ttl of r, number of slots,
--       per slot: amount to reserve, ttl in ms;
--       number of charges, per charge: slot (1..), limit, reserve, at_most, over (r/s/h)
-- Returns {'go', over...} | {'small', over...} | {'count'} | {'reject', charge, level}, where over
-- and charge are positions (1..) in the list of charges.
--
-- Amounts come and go as decimal strings: Lua has doubles only, and picodollars pass 2^53 at
-- $9,007. They are kept as hi * 1e12 + lo, each exact.
local B = 1e12

local function num(s)
  if not s then return 0, 0 end
  local n = #s
  if n <= 12 then return 0, tonumber(s) end
  return tonumber(string.sub(s, 1, n - 12)), tonumber(string.sub(s, n - 11))
end

local function add(ah, al, bh, bl)
  local h, l = ah + bh, al + bl
  if l >= B then h, l = h + 1, l - B end
  return h, l
end

local function minus(ah, al, bh, bl)
  local h, l = ah - bh, al - bl
  if l < 0 then h, l = h - 1, l + B end
  if h < 0 then return 0, 0 end
  return h, l
end

local function above(ah, al, bh, bl)
  return ah > bh or (ah == bh and al > bl)
end

local function text(h, l)
  if h == 0 then return string.format('%.0f', l) end
  return string.format('%.0f%012.0f', h, l)
end

local function give_back(c, field)
  local amount = redis.call('HGET', c, field)
  if not amount then return end
  redis.call('HDEL', c, field)
  local h, l = num(redis.call('HGET', c, 'r'))
  h, l = minus(h, l, num(amount))
  redis.call('HSET', c, 'r', text(h, l))
end

-- A shorter life never replaces a longer one.
local function live(key, ttl)
  if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end

local id, now, lapses, last = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local slots = tonumber(ARGV[6])

-- An id that holds a reservation already asks again: the old one goes.
for _, c in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  give_back(c, 'i:' .. id)
  redis.call('ZREM', '{sluice}:x:' .. string.sub(c, 12), id)
end
redis.call('DEL', KEYS[1])

local level = {}
for s = 1, slots do
  local c, x = KEYS[2 * s], KEYS[2 * s + 1]
  local gone = redis.call('ZRANGEBYSCORE', x, '-inf', now)
  if #gone > 0 then
    for _, other in ipairs(gone) do give_back(c, 'i:' .. other) end
    redis.call('ZREMRANGEBYSCORE', x, '-inf', now)
  end
  local both = redis.call('HMGET', c, 'u', 'r')
  local uh, ul = num(both[1])
  level[s] = { add(uh, ul, num(both[2])) }
end

local at = 7 + 2 * slots
local charges = tonumber(ARGV[at])
local over, full, exact, kind, of = {}, {}, {}, {}, {}
for i = 1, charges do
  local p = at + 1 + (i - 1) * 5
  of[i] = tonumber(ARGV[p])
  kind[i] = ARGV[p + 4]
  exact[i] = ARGV[p + 2] == ARGV[p + 3]
  local h, l = level[of[i]][1], level[of[i]][2]
  local mh, ml = num(ARGV[p + 1])
  local sh, sl = add(h, l, num(ARGV[p + 3]))
  over[i] = above(sh, sl, mh, ml)
  full[i] = over[i] and not above(mh, ml, h, l)
end

local function reject(i)
  local it = level[of[i]]
  return { 'reject', i, text(it[1], it[2]) }
end

for i = 1, charges do
  if full[i] and kind[i] == 'r' then return reject(i) end
end
for i = 1, charges do
  if over[i] and not full[i] and not exact[i] then return { 'count' } end
end
for i = 1, charges do
  if over[i] and kind[i] == 'r' then return reject(i) end
end
local answer, smaller = { 'go' }, false
for i = 1, charges do
  if over[i] then
    answer[#answer + 1] = i
    if kind[i] == 's' then smaller = true end
  end
end
if smaller and not last then
  answer[1] = 'small'
  return answer
end

for s = 1, slots do
  local c, x = KEYS[2 * s], KEYS[2 * s + 1]
  local amount, ttl = ARGV[5 + 2 * s], ARGV[6 + 2 * s]
  if amount ~= '0' then
    local h, l = num(redis.call('HGET', c, 'r'))
    h, l = add(h, l, num(amount))
    redis.call('HSET', c, 'r', text(h, l), 'i:' .. id, amount)
    redis.call('ZADD', x, lapses, id)
    live(c, ttl)
    live(x, ttl)
    redis.call('SADD', KEYS[1], c)
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
  end
end
return answer
