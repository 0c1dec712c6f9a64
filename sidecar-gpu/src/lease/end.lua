-- Ends a lease that is still its holder's.
--
-- KEYS: lease; ARGV: holder, token (0: whatever it has), ms for which the key is open afterwards (0: not)
-- Returns 1 when it was held.
local there = redis.call('GET', KEYS[1])
if not there then return 0 end
local holder, token = string.match(there, '^(%x+):(%d+)$')
if holder ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' and token ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], 'open', 'PX', ARGV[3])
end
return 1
