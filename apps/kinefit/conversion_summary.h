#pragma once

#include <string>

#include "convert/annotation_file.h"

namespace kinefit {

// Prints what a conversion made and left out, the first few clips by name; `out` holds the rest.
void PrintConversion(const ConversionReport& report, const std::string& out);

}  // namespace kinefit
