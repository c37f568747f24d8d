#include "memory/host_diagnosis.h"

#include "memory/bytes.h"

namespace kinefit {
namespace {

const char* const kSeeHost =
    "`kinefit memory` shows what the machine or container has, and who has "
    "most of it.";
const char* const kLessOnHost =
    "Hold less on the host: fewer loader workers and prefetched batches, data that is read when "
    "needed instead of at the start, smaller batches on the CPU.";

void ExplainBare(Diagnosis* d) {
  d->headline = d->message.source + " out of memory, without figures";
  d->why =
      "The driver itself refused memory, not PyTorch's allocator (which gives figures). Usually "
      "the GPU was full before the program began, so that not even its context found room; or "
      "memory outside PyTorch (NCCL, cuDNN, a captured graph) found none.";
  d->advice = {
      "See who is on the GPU before the program starts: `kinefit memory` or nvidia-smi. End what "
      "an earlier run left behind, or choose another GPU (CUDA_VISIBLE_DEVICES).",
      "If nobody is there, the program's own tensors and cache left no room for the libraries: "
      "`kinefit plan CONFIG -s device=cuda --memory CAPACITY --in-use 1GiB` leaves them some.",
      "The traceback may point at a later call: CUDA_LAUNCH_BLOCKING=1 makes it exact."};
}

void ExplainLibrary(Diagnosis* d) {
  const std::string& name = d->message.source;
  d->headline = name + " found no GPU memory";
  d->why = name +
           " allocates its handle and workspace outside PyTorch's cache, and the GPU had none left "
           "for it. So the GPU was full, even if no figures are given. (The same error can follow "
           "from a kernel that failed before it, for instance a label outside the classes.)";
  d->advice = {
      "See who is on the GPU: `kinefit memory` or nvidia-smi. Another process, or this one's "
      "cache, "
      "has it all.",
      "Leave the libraries room: `kinefit plan CONFIG -s device=cuda --memory CAPACITY --in-use "
      "1GiB` finds what does.",
      "If the GPU is nearly empty: run once with CUDA_LAUNCH_BLOCKING=1, or on the CPU, and look "
      "for labels that are out of range."};
}

void ExplainBudget(Diagnosis* d) {
  const OomMessage& m = d->message;
  d->headline = "kinefit's memory.budget was exhausted";
  d->cause = OomCause::kBudget;
  if (!m.requested || m.capacity.value_or(0) == 0 || !m.allocated) {
    d->why =
        "An allocation would have gone beyond memory.budget; the figures in the message "
        "cannot be used.";
  } else {
    const int64_t left = *m.capacity - *m.allocated;
    d->why = FormatAmount(*m.requested) + " were asked for, and of the budget of " +
             FormatAmount(*m.capacity) + " " + FormatAmount(*m.allocated) + " were in use. ";
    if (left < 0) {
      d->why += "That is more than the budget: tensors existed before it was set.";
    } else {
      d->shares = {{Holder::kTensors, "live tensors of this process", *m.allocated},
                   {Holder::kFree, "left of the budget", left}};
      d->why += "All of that is this run's own tensors: nothing else counts against the budget.";
    }
    d->available = d->if_alone = m.capacity;
  }
  d->advice = {"See what the step needs and what would fit: `kinefit plan CONFIG" +
                   (d->available ? " --memory " + AmountOption(*m.capacity) : std::string()) +
                   "`; `kinefit train` plans the same way unless it is told not to.",
               "Raise memory.budget if the machine has more: `kinefit memory` shows it."};
}

void ExplainHostAllocation(Diagnosis* d) {
  const OomMessage& m = d->message;
  d->headline = "The host refused an allocation (" + m.source + ")";
  d->cause = OomCause::kHostMemory;
  const std::string amount = m.requested ? FormatAmount(*m.requested) : "Memory";
  d->why = amount +
           (m.requested ? " of host memory were asked for" : " was asked for on the host") +
           " and not given (error 12, ENOMEM). This is the machine's own memory, or the "
           "container's, or a limit of the shell (ulimit -v): not the GPU's.";
  if (m.allocated) d->why += " " + FormatAmount(*m.allocated) + " were in its tensors already.";
  if (m.requested && *m.requested >= int64_t{1} << 40) {
    d->why +=
        " One request of that size is more than machines have: its shape is wrong, or a "
        "whole data set is put into one array.";
  }
  d->advice = {kSeeHost, kLessOnHost,
               "For training on the CPU: `kinefit plan CONFIG` finds what fits, with "
               "the same effective batch."};
}

void ExplainHostKilled(Diagnosis* d) {
  const OomMessage& m = d->message;
  const std::string whose =
      m.container_limit ? "a container's or job's memory limit" : "the machine's memory";
  d->headline = "Ended by the out-of-memory killer";
  d->cause = OomCause::kHostMemory;
  d->why = "The kernel ran out of memory under " + whose + " and ended ";
  d->why += m.pid ? "process " + std::to_string(*m.pid) : std::string("a process");
  if (!m.program.empty()) d->why += " (" + m.program + ")";
  if (m.memory) d->why += ", which held " + FormatAmount(*m.memory);
  d->why +=
      ". This is the host's memory, not the GPU's; the program got no chance to say anything.";
  d->advice = {m.container_limit
                   ? "Ask for more: docker run --memory, Slurm's --mem, the pod's memory limit."
                   : "See who else took the machine's memory: `kinefit memory`, and the table that "
                     "dmesg prints above this line.",
               kLessOnHost, kSeeHost};
}

void ExplainKilled(Diagnosis* d) {
  const OomMessage& m = d->message;
  d->headline = m.program.empty() ? "A process was ended by SIGKILL"
                                  : "A " + m.program + " was ended by SIGKILL";
  d->cause = OomCause::kHostMemory;
  d->why =
      "\"Killed\", exit code 137 (128 + 9) and exitcode -9 mean the same: somebody outside the "
      "program ended it. On Linux that is nearly always the kernel's out-of-memory killer or a "
      "container's memory limit: the host's memory, not the GPU's. (A GPU that runs out never "
      "ends a program this way.)";
  d->advice = {
      "Make sure: `dmesg -T | grep -i 'killed process'`, `kubectl describe pod` (OOMKilled), "
      "`sacct -j JOB --format=State,MaxRSS`.",
      kLessOnHost, kSeeHost};
}

void ExplainSharedMemory(Diagnosis* d) {
  d->headline = "/dev/shm is full";
  d->cause = OomCause::kSharedMemory;
  d->why =
      "PyTorch's loader workers are processes and hand their batches over through /dev/shm; "
      "writing to a full one ends them with a bus error. Containers have 64 MiB of it unless "
      "told otherwise. Neither the GPU nor the host's memory need be full.";
  d->advice = {
      "Give the container more: docker run --shm-size=16g or --ipc=host; in Kubernetes an "
      "emptyDir with medium: Memory at /dev/shm. `df -h /dev/shm` shows it.",
      "Otherwise fewer workers, or torch.multiprocessing.set_sharing_strategy("
      "'file_system').",
      "kinefit's own loader uses threads and needs no /dev/shm."};
}

void ExplainWorkerEnded(Diagnosis* d) {
  d->headline = "A loader worker ended";
  d->why =
      "The message does not say why; the lines above it, or the worker's own, may. Memory is "
      "the usual reason: a bus error means that /dev/shm is full, \"Killed\" that the host's "
      "memory was.";
  d->advice = {"Look at `dmesg -T | tail` and `df -h /dev/shm`.",
               "Run once with no workers: the true error then appears in the program itself.",
               kSeeHost};
}

}  // namespace

Diagnosis DiagnoseWithoutFigures(const OomMessage& message) {
  Diagnosis d;
  d.message = message;
  d.notes = message.doubts;
  switch (message.kind) {
    case OomKind::kGpu:
    case OomKind::kGpuBare:
      ExplainBare(&d);
      break;
    case OomKind::kGpuLibrary:
      ExplainLibrary(&d);
      break;
    case OomKind::kBudget:
      ExplainBudget(&d);
      break;
    case OomKind::kHostAllocation:
      ExplainHostAllocation(&d);
      break;
    case OomKind::kHostKilled:
      ExplainHostKilled(&d);
      break;
    case OomKind::kKilled:
      ExplainKilled(&d);
      break;
    case OomKind::kSharedMemory:
      ExplainSharedMemory(&d);
      break;
    case OomKind::kWorkerEnded:
      ExplainWorkerEnded(&d);
      break;
  }
  return d;
}

}  // namespace kinefit
