#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kinefit {

enum class OomKind {
  kGpu,             // PyTorch's allocator on a GPU (CUDA, HIP, XPU, MPS), with its figures
  kGpuBare,         // out of GPU memory, without figures
  kGpuLibrary,      // cuBLAS, cuDNN, ...: STATUS_ALLOC_FAILED
  kBudget,          // kinefit's own memory.budget
  kHostAllocation,  // the host refused an allocation
  kHostKilled,      // ended by the kernel's out-of-memory killer or by a job's memory limit
  kKilled,          // ended by SIGKILL; the message does not say by whom
  kSharedMemory,    // /dev/shm is full
  kWorkerEnded,     // a data loader's worker ended; the message does not say why
};

struct GpuProcess {
  int64_t pid = 0;
  std::optional<int64_t> bytes;  // absent: the driver did not say
};

// One out-of-memory message as it was written. All amounts in bytes; absent: not in the message, or
// it cannot be true (then `doubts` says so).
struct OomMessage {
  OomKind kind = OomKind::kGpu;
  std::string source;           // "CUDA", "HIP", "XPU", "MPS"; of a library or allocator its name
  int64_t line = 0;             // of the input, from 1, where it stands first
  int64_t count = 1;            // how often it stands there, word for word
  std::optional<int64_t> rank;  // of the process, where the launcher marked its lines
  std::optional<int64_t> gpu;   // as that process counts them

  std::optional<int64_t> requested;
  std::optional<int64_t> capacity;   // of the GPU; kBudget: the budget; MPS: the limit
  std::optional<int64_t> free;       // on the GPU
  std::optional<int64_t> allowed;    // limit that the process set itself
  std::optional<int64_t> largest;    // that the driver gives in one piece (XPU)
  std::optional<int64_t> allocated;  // in tensors, and in `graphs` where that is given
  std::optional<int64_t> graphs;     // of `allocated`: kept for CUDA graphs (private pools)
  std::optional<int64_t> unused;     // reserved by PyTorch, in no tensor
  std::optional<int64_t> process;    // all of this process, PyTorch or not
  std::vector<GpuProcess> others;    // processes that the message names

  std::string program;            // kHostKilled, kKilled, kWorkerEnded: whose end it was, if known
  std::optional<int64_t> pid;     // of it
  std::optional<int64_t> memory;  // of it when it was ended (anonymous resident memory)
  bool container_limit = false;   // kHostKilled: a container's or job's limit, not the machine's

  std::vector<std::string> doubts;  // figures left out, and why: whole sentences
  std::string excerpt;              // the line it starts in, without control characters, shortened
};

// Finds every out-of-memory message in a log or a pasted text of any size, in order; the same
// message again (same words, same rank) is counted, not repeated. At most 200 different ones are
// returned, `*left_out` (if given) becomes the number of further ones. For any bytes; needs time
// and memory linear in them.
std::vector<OomMessage> FindOomMessages(std::string_view log, int64_t* left_out = nullptr);

// What FindOomMessages looks for, for people: one line each.
const std::vector<std::string>& KnownOomMessages();

}  // namespace kinefit
