#pragma once

#include <string>
#include <vector>

namespace kinefit {

// Several byte strings as one, to be sent to other ranks of the same build.
std::string Pack(const std::vector<std::string>& parts);
// Throws Error for what Pack() did not make.
std::vector<std::string> Unpack(const std::string& bytes);

}  // namespace kinefit
