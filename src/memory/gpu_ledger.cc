#include "memory/gpu_ledger.h"

#include <algorithm>
#include <limits>

#include "memory/bytes.h"

namespace kinefit {
namespace {

// Eight figures rounded to 0.01 GiB differ from the truth by so much together.
constexpr int64_t kRounding = int64_t{48} << 20;

int64_t PyTorchBytes(const OomMessage& m) { return m.allocated.value_or(0) + m.unused.value_or(0); }

int64_t OthersBytes(const OomMessage& m) {
  int64_t bytes = 0;
  for (const GpuProcess& process : m.others) bytes += process.bytes.value_or(0);
  return bytes;
}

// In a container PyTorch does not recognise itself in the driver's list, whose process numbers are
// the host's, and lists itself as another process. It shows: the sum exceeds the GPU, and one
// process holds at least what PyTorch does.
void FindOurselves(GpuLedger* ledger) {
  OomMessage& m = ledger->message;
  if (m.process || !m.allocated || !m.capacity) return;
  const int64_t pytorch = PyTorchBytes(m);
  if (pytorch == 0 || pytorch + OthersBytes(m) + m.free.value_or(0) <= *m.capacity + kRounding) {
    return;
  }
  auto best = m.others.end();
  int64_t least = std::numeric_limits<int64_t>::max();
  for (auto process = m.others.begin(); process != m.others.end(); ++process) {
    const int64_t bytes = process->bytes.value_or(-1);
    if (bytes < pytorch - kRounding || bytes >= least) continue;
    best = process;
    least = bytes;
  }
  if (best == m.others.end()) return;
  ledger->notes.push_back(
      "Process " + std::to_string(best->pid) + " is this process itself: it holds " +
      FormatAmount(least) + ", PyTorch here " + FormatAmount(pytorch) +
      ", and the GPU has no room for both. (In a container the driver counts processes otherwise "
      "than the program does.)");
  m.process = std::max(least, pytorch);
  m.others.erase(best);
}

// Every rank of a job that touches the first GPU before it has chosen its own leaves a context
// there.
void NoteStrayContexts(GpuLedger* ledger) {
  const std::vector<GpuProcess>& others = ledger->message.others;
  const auto small = std::count_if(others.begin(), others.end(), [](const GpuProcess& process) {
    return process.bytes && *process.bytes > 0 && *process.bytes < int64_t{1} << 30;
  });
  if (small < 2) return;
  ledger->notes.emplace_back(
      "Several processes hold less than 1 GiB each here, as much as a context: probably other "
      "ranks "
      "of the same job that touched this GPU before they chose their own "
      "(torch.cuda.set_device(local_rank) must come first).");
}

void AddRest(int64_t rest, GpuLedger* ledger) {
  const OomMessage& m = ledger->message;
  if (rest <= 0) return;
  if (!m.free) {
    ledger->shares.push_back(
        {Holder::kUnclear, "free or held by others: the message does not say", rest});
  } else if (!m.allocated) {
    ledger->shares.push_back({Holder::kUnclear, "in use; the message does not say by whom", rest});
  } else if (!m.unused && !m.process) {
    ledger->shares.push_back({Holder::kNotLive,
                              "NOT live tensors: another process, a context, or unusable cache",
                              rest});
  } else if (!m.process) {
    ledger->shares.push_back(
        {Holder::kNotPyTorch, "NOT PyTorch's: other processes, and contexts", rest});
  } else {
    ledger->shares.push_back(
        {Holder::kUnattributed, "not attributed: driver, display, processes not visible", rest});
  }
}

}  // namespace

GpuLedger MakeGpuLedger(const OomMessage& message) {
  GpuLedger ledger;
  ledger.message = message;
  FindOurselves(&ledger);
  NoteStrayContexts(&ledger);
  const OomMessage& m = ledger.message;
  ledger.others = OthersBytes(m);
  if (!m.capacity) return ledger;
  const auto add = [&](Holder holder, const std::string& what, int64_t bytes) {
    ledger.shares.push_back({holder, what, bytes});
  };
  if (m.allocated) {
    const int64_t graphs = std::min(m.graphs.value_or(0), *m.allocated);
    add(Holder::kTensors, "live tensors of this process", *m.allocated - graphs);
    if (graphs > 0) add(Holder::kGraphs, "kept for CUDA graphs (private pools)", graphs);
  }
  if (m.unused) add(Holder::kCache, "PyTorch's cache, in no tensor, in pieces", *m.unused);
  if (m.process) {
    add(Holder::kOwnOther, "this process outside PyTorch (context, libraries)",
        std::max<int64_t>(*m.process - PyTorchBytes(m), 0));
  }
  for (const GpuProcess& process : m.others) {
    if (!process.bytes) continue;
    add(Holder::kOtherProcess, "NOT OURS: process " + std::to_string(process.pid), *process.bytes);
  }
  int64_t named = m.free.value_or(0);
  for (const MemoryShare& share : ledger.shares) named += share.bytes;
  const int64_t rest = *m.capacity - named;
  ledger.rest = std::max<int64_t>(rest, 0);
  if (rest >= -kRounding) {
    AddRest(rest, &ledger);
    if (rest < 0) add(Holder::kRounding, "rounding of the figures", rest);
  } else if (PyTorchBytes(m) + m.free.value_or(0) > *m.capacity + kRounding) {
    ledger.elsewhere = -rest;
    add(Holder::kElsewhere, "of these in host memory, where the driver moved them", rest);
  } else {
    ledger.contradictory = true;
    ledger.shares.clear();
    ledger.notes.push_back("The message's figures add up to " + FormatAmount(named) +
                           ", more than the GPU's " + FormatAmount(*m.capacity) +
                           ": they cannot all be true, so nothing is concluded from them.");
    return ledger;
  }
  if (m.free) add(Holder::kFree, "free", *m.free);
  ledger.foreign =
      ledger.others + (m.process ? ledger.rest : std::max<int64_t>(ledger.rest - kContextBytes, 0));
  return ledger;
}

}  // namespace kinefit
