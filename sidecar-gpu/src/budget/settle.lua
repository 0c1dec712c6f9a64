-- Releases what a request holds and charges what it used, once per id whichever sidecar asks.
--
-- KEYS: m (the id's marker), r (which counters its reservation lies on), then per slot: c, x
-- ARGV: id, sidecar, ttl of the marker, number of slots, per slot: amount, ttl in ms
-- Returns 1 when charged now, 0 when it was before.
local B = 1e12
-- Where `used` stops: 9e18, as in the memory store.
local TOP = 9e6

local function num(s)
  if not s then return 0, 0 end
  local n = #s
  if n <= 12 then return 0, tonumber(s) end
  return tonumber(string.sub(s, 1, n - 12)), tonumber(string.sub(s, n - 11))
end

local function text(h, l)
  if h == 0 then return string.format('%.0f', l) end
  return string.format('%.0f%012.0f', h, l)
end

-- A shorter life never replaces a longer one.
local function live(key, ttl)
  if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end

local marker = redis.call('GET', KEYS[1])
if marker and string.sub(marker, 1, 2) == 'd:' then return 0 end
redis.call('SET', KEYS[1], 'd:' .. ARGV[2], 'PX', ARGV[3])

for _, c in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local field = 'i:' .. ARGV[1]
  local amount = redis.call('HGET', c, field)
  if amount then
    redis.call('HDEL', c, field)
    redis.call('ZREM', '{sluice}:x:' .. string.sub(c, 12), ARGV[1])
    local rh, rl = num(redis.call('HGET', c, 'r'))
    local ah, al = num(amount)
    local h, l = rh - ah, rl - al
    if l < 0 then h, l = h - 1, l + B end
    if h < 0 then h, l = 0, 0 end
    redis.call('HSET', c, 'r', text(h, l))
  end
end
redis.call('DEL', KEYS[2])

for s = 1, tonumber(ARGV[4]) do
  local c, x = KEYS[2 * s + 1], KEYS[2 * s + 2]
  local amount, ttl = ARGV[3 + 2 * s], ARGV[4 + 2 * s]
  local uh, ul = num(redis.call('HGET', c, 'u'))
  local ah, al = num(amount)
  local h, l = uh + ah, ul + al
  if l >= B then h, l = h + 1, l - B end
  if h >= TOP then h, l = TOP, 0 end
  redis.call('HSET', c, 'u', text(h, l))
  live(c, ttl)
  live(x, ttl)
end
return 1
