#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memory/oom_message.h"

namespace kinefit {

// Who holds a part of a GPU's memory (or of the budget).
enum class Holder {
  kTensors,   // live tensors of the process that failed
  kGraphs,    // its private pools, kept for CUDA graphs
  kCache,     // reserved by its PyTorch, in no tensor, and in no piece large enough
  kOwnOther,  // its context and libraries outside PyTorch
  kOtherProcess,
  kNotLive,       // other process, context or cache: the message does not tell them apart
  kNotPyTorch,    // other processes or contexts: the message does not tell them apart
  kUnattributed,  // driver, display, processes that may not be seen
  kFree,
  kUnclear,    // the message says neither that it is free nor who has it
  kElsewhere,  // negative: counted above, but moved to host memory by the driver
  kRounding,   // what the rounded figures differ by
};

struct MemoryShare {
  Holder holder = Holder::kFree;
  std::string what;  // for people
  int64_t bytes = 0;
};

// Why an allocation failed.
enum class OomCause {
  kNotOurs,         // memory that other processes hold
  kNotOursOrCache,  // that, or cache; the message does not say which
  kFragmented,      // cache in pieces
  kTensors,         // the step needs more than there is
  kTooLarge,        // one request larger than the GPU
  kOwnLimit,        // a limit the process set itself
  kFreeYetFailed,   // enough was free
  kUnclear,         // the message does not hold enough to tell
  kBudget,          // kinefit's memory.budget
  kHostMemory,      // the host's or the container's memory
  kSharedMemory,    // /dev/shm
};

// A stable name of the cause for scripts: "not_ours", "tensors", ...
std::string NameOf(OomCause cause);
std::string NameOf(Holder holder);

// What a message means.
struct Diagnosis {
  OomMessage message;
  std::string headline;             // "CUDA out of memory on GPU 1"
  std::vector<MemoryShare> shares;  // add up to message.capacity exactly; empty: not known
  OomCause cause = OomCause::kUnclear;
  std::string why;                  // whole sentences
  std::vector<std::string> advice;  // what to do first, second, ...; whole sentences
  std::vector<std::string> notes;   // what was read between the lines, what was left out
  // Bytes of the GPU that this process can have, its context included, while others keep what they
  // hold, and if nobody else were there: budgets to plan with. kBudget: the budget, both. Where the
  // message does not list this process, its context counts among the others' memory.
  std::optional<int64_t> available;
  std::optional<int64_t> if_alone;
};

// Explains one message. Uses nothing but the message: a pure function.
Diagnosis Diagnose(const OomMessage& message);

// What several messages of one log say together (ranks that share a GPU, deaths that follow from
// others); whole sentences, possibly none.
std::vector<std::string> DiagnoseTogether(const std::vector<Diagnosis>& diagnoses);

}  // namespace kinefit
