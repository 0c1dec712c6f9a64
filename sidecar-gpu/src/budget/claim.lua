-- Says for each id who settles or has settled it, and claims those that nobody has.
--
-- KEYS: markers; ARGV: sidecar, ttl of a claim in ms
-- Returns per id: 'f' claimed now, 'p:SIDECAR' another is at it, 'd:SIDECAR' done.
local answer = {}
for i, key in ipairs(KEYS) do
  local marker = redis.call('GET', key)
  if not marker then
    redis.call('SET', key, 'p:' .. ARGV[1], 'PX', ARGV[2])
    marker = 'f'
  end
  answer[i] = marker
end
return answer
