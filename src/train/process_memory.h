#pragma once

#include <cstdint>

namespace kinefit {

// The largest resident size this process has had, in bytes (VmHWM of /proc/self/status); the
// present one where the kernel does not say; 0 where there is no /proc.
int64_t PeakResidentBytes();

}  // namespace kinefit
