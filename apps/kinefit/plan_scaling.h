#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"

namespace kinefit {

struct ScalingRequest {
  int64_t devices = 1;          // the run's own number: its line is marked
  std::string link = "25GB/s";  // bandwidth of each device's link
  double step_seconds = 0;      // measured on one device; 0: estimated
};

// Step time and efficiency on 1 to 64 devices of the plan that `config` holds, as a table with the
// formula and the assumptions (distributed/scaling.h). Throws Error for a malformed link.
std::string ScalingText(const Config& config, const ScalingRequest& request);

// "25GB/s", "200Gbit/s" -> bytes per second. Throws Error.
double ParseLink(const std::string& text);

}  // namespace kinefit
