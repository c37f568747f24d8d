#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace kinefit {

// Parses a JSON text, a byte order mark before it passed over; NaN and infinities, as Python writes
// them, become null. Throws Error naming `where` and the byte for anything else, also for numbers
// that no double can hold.
nlohmann::json ParseJson(std::string_view text, const std::string& where);

// The same; of a text with one JSON value a line, the list of them.
nlohmann::json ParseJsonOrLines(std::string_view text, const std::string& where);

}  // namespace kinefit
