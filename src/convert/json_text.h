#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace kinefit {

// Parses a JSON text. Throws Error naming `where` and the byte for anything else, also for numbers
// that no double can hold.
nlohmann::json ParseJson(std::string_view text, const std::string& where);

}  // namespace kinefit
