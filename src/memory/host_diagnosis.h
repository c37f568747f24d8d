#pragma once

#include "memory/diagnosis.h"

namespace kinefit {

// Explains what is not a GPU allocator's message with figures: bare GPU errors, libraries,
// kinefit's budget, the host's memory, deaths. Called by Diagnose. REQUIRES: message.kind is not
// kGpu.
Diagnosis DiagnoseWithoutFigures(const OomMessage& message);

}  // namespace kinefit
