-- space_of(key): the prefix of all keys of a space, jw:{S}:, from the key of its hash, jw:{S}:space.
local function space_of(key)
  return string.sub(key, 1, -1 - #'space')
end
