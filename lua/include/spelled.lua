-- spelled(number): a whole number's digits. The last ones are remembered: a script has few moments, each used often, and
-- a number costs as much to spell as a text to join.
local spelled_number, spelled_digits = nil, nil
local function spelled(number)
  if number ~= spelled_number then spelled_number, spelled_digits = number, string.format('%d', number) end
  return spelled_digits
end
