-- Ends a lease that is still its holder's.
--
-- KEYS: lease; ARGV: holder, token (0: whatever it has), what is left of it: 'over' (nothing), 'open'
-- or 'rest', ms of that, most ms of a rest, which doubles with each failure in a row
-- Returns 1 when it was held.
local there = redis.call('GET', KEYS[1])
if not there then return 0 end
local holder, token, failures = string.match(there, '^(%x+):(%d+):?(%d*)$')
if holder ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' and token ~= ARGV[2] then return 0 end
if ARGV[3] == 'open' then
  redis.call('SET', KEYS[1], 'open', 'PX', ARGV[4])
elseif ARGV[3] == 'rest' then
  local times = tonumber(failures) or 0
  local most = tonumber(ARGV[5])
  local rest = math.min(ARGV[4] * 2 ^ math.min(times, 16), most)
  local now = redis.call('TIME')
  local rests = string.format('%.0f', now[1] * 1000000 + now[2] + rest * 1000)
  local value = 'rest:' .. (times + 1) .. ':' .. rests
  redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', rest + most))
else
  redis.call('DEL', KEYS[1])
end
return 1
