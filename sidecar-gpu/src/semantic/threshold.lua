-- KEYS: thresholds; ARGV: route, what is there as the caller knows it (empty: nothing), what is to
-- be, most routes, life in ms. Puts it there; returns what is there, or false where there is no room.
local there = redis.call('HGET', KEYS[1], ARGV[1])
if (there or '') ~= ARGV[2] then return there or '' end
if not there and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return ARGV[3]
