#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memory/cuda_constants.h"
#include "memory/diagnosis.h"
#include "memory/oom_message.h"

namespace kinefit {

// Of what a message does not attribute, at most so much may be this process's own context.
constexpr int64_t kContextBytes = cuda_constants::kContext.high;

// A GPU's memory at the moment of a failure, divided among those who held it.
struct GpuLedger {
  OomMessage message;               // with the process itself taken out of `others`
  std::vector<MemoryShare> shares;  // add up to the capacity; empty if the figures do not allow it
  int64_t others = 0;               // in processes that the message names
  int64_t rest = 0;                 // capacity less everything named; not negative
  int64_t foreign = 0;              // surely not this process's: others, rest less a context
  int64_t elsewhere = 0;            // allocated beyond the capacity: moved to host memory
  bool contradictory = false;       // the figures add up to more than there is
  std::vector<std::string> notes;   // whole sentences
};

// Divides the memory of a kGpu message. Needs message.capacity for shares.
GpuLedger MakeGpuLedger(const OomMessage& message);

}  // namespace kinefit
