#include "memory/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "memory/bytes.h"
#include "memory/gpu_ledger.h"
#include "memory/host_diagnosis.h"

namespace kinefit {
namespace {

// Less than a tenth of a GPU is not called the cause, unless it is many times the request: then it
// would have done for long, whatever the GPU's size.
bool IsSignificant(int64_t bytes, const OomMessage& m) {
  constexpr int64_t kManyRequests = 16;
  return bytes >= *m.capacity / 10 ||
         (m.requested && !m.graphs && bytes / kManyRequests >= *m.requested);
}

// Messages round to a hundredth of their unit: three figures of gigabytes may be off by so much.
constexpr int64_t kRounding = int64_t{16} << 20;

std::string Percent(int64_t part, int64_t whole) {
  const double percent = 100 * static_cast<double>(part) / static_cast<double>(whole);
  return std::to_string(std::llround(percent)) + " %";
}

std::string ListProcesses(const OomMessage& m, const char* separator, bool with_bytes) {
  std::string text;
  for (const GpuProcess& process : m.others) {
    if (!text.empty()) text += separator;
    text += std::to_string(process.pid);
    if (with_bytes) {
      text += " (" + (process.bytes ? FormatAmount(*process.bytes) : "amount not known") + ")";
    }
  }
  return text;
}

std::string GpuName(const OomMessage& m) {
  return m.gpu ? "GPU " + std::to_string(*m.gpu) : "the GPU";
}

// Whether memory outside this process, and its own cache, could have served the request.
struct Culprits {
  int64_t missing = 0;  // requested less free
  bool foreign = false;
  bool cache = false;
};

Culprits FindCulprits(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  Culprits culprits;
  culprits.missing = *m.requested - *m.free;
  culprits.foreign = ledger.foreign >= culprits.missing && IsSignificant(ledger.foreign, m);
  const int64_t cache = m.unused.value_or(0);
  culprits.cache = cache >= culprits.missing && IsSignificant(cache, m);
  return culprits;
}

OomCause FindCause(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  if (ledger.contradictory || !m.requested) return OomCause::kUnclear;
  if (m.capacity && *m.requested > *m.capacity) return OomCause::kTooLarge;
  const int64_t pytorch = m.allocated.value_or(0) + m.unused.value_or(0);
  const int64_t tolerance = m.free && *m.free >= *m.requested ? kRounding : 0;
  if (m.allowed && pytorch + *m.requested > *m.allowed - tolerance) return OomCause::kOwnLimit;
  if (m.largest && *m.requested > *m.largest) return OomCause::kFreeYetFailed;
  if (!m.capacity || !m.allocated || !m.free) return OomCause::kUnclear;
  if (*m.free >= *m.requested) return OomCause::kFreeYetFailed;
  if (ledger.elsewhere > 0) return OomCause::kTensors;
  const Culprits culprits = FindCulprits(ledger);
  if (culprits.foreign && (!culprits.cache || ledger.foreign >= *m.unused)) {
    return m.unused || m.process ? OomCause::kNotOurs : OomCause::kNotOursOrCache;
  }
  return culprits.cache ? OomCause::kFragmented : OomCause::kTensors;
}

// REQUIRES: the figures of a cause that FindCause gives for complete messages.
std::string Asked(const OomMessage& m) {
  const int64_t graphs = std::min(m.graphs.value_or(0), *m.allocated);
  std::string text = FormatAmount(*m.requested) + " were asked for and " + FormatAmount(*m.free) +
                     " were free. This process's live tensors took " +
                     FormatAmount(*m.allocated - graphs) + ", " +
                     Percent(*m.allocated - graphs, *m.capacity) + " of " + GpuName(m);
  if (graphs > 0) text += "; its CUDA graphs keep another " + FormatAmount(graphs);
  return text + ". ";
}

std::string WrongCause(const OomMessage& m) {
  return " Lowering the batch (and the learning rate with it) treats the wrong cause: the tensors "
         "are not what filled " +
         GpuName(m) + ".";
}

std::string WhyNotOurs(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  const int64_t held = ledger.others + ledger.rest;
  std::string why = Asked(m);
  if (!m.unused && !m.process) {
    why += "The other " + FormatAmount(held) +
           " are not live tensors: they belong to another process, to a context, or are cache of "
           "this process in pieces that could not be used again. Which of these, the message does "
           "not say: its \"reserved\" figure is missing.";
  } else {
    why += FormatAmount(held) + " are not this process's PyTorch: ";
    if (!m.others.empty()) why += "process " + ListProcesses(m, ", ", true);
    if (!m.others.empty() && ledger.rest > 0) why += ", and " + FormatAmount(ledger.rest) + " in ";
    if (ledger.rest > 0) {
      why += m.process ? "the driver, the display or processes that it may not see"
                       : "other processes and contexts (of its own at most " +
                             FormatAmount(kContextBytes) + ")";
    }
    why += ".";
  }
  why += " The " + FormatAmount(*m.requested) + " failed only because of these " +
         FormatAmount(held) + ".";
  if (m.unused && IsSignificant(*m.unused, m)) {
    why += " Besides, " + FormatAmount(*m.unused) + " of its cache lie unused in pieces.";
  }
  return why + WrongCause(m);
}

std::string WhyFragmented(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  return Asked(m) + FormatAmount(*m.unused) + " (" + Percent(*m.unused, *m.capacity) +
         ") are reserved by PyTorch but hold no tensor: together with the free memory enough for "
         "the request, but in pieces between live tensors, none of them large enough. (Whole "
         "pieces PyTorch had given back before it gave up.) A smaller batch would only hide that.";
}

std::string WhyTensors(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  std::string why = Asked(m);
  if (ledger.elsewhere > 0) {
    return why + "That is more than the GPU has: the driver had already moved at least " +
           FormatAmount(ledger.elsewhere) +
           " to host memory (Windows and WSL do), where training is slower by far. The step needs "
           "more than this GPU has.";
  }
  const int64_t wanted = *m.allocated + *m.requested;
  const int64_t missing = *m.requested - *m.free;
  why += "With the request they come to " + FormatAmount(wanted);
  if (wanted > *m.capacity) {
    why += ": more than the GPU could give if nothing else were on it. ";
  } else {
    why += "; " + FormatAmount(missing) + " were missing. ";
    for (const auto& [bytes, whose] :
         {std::pair<int64_t, const char*>{ledger.foreign, "others hold"},
          {m.unused.value_or(0), "its cache holds in pieces"}}) {
      if (bytes < missing) continue;
      why += "The " + FormatAmount(bytes) + " that " + whose +
             " would have been enough for this one request, and hardly for the next. ";
    }
  }
  if (*m.requested > *m.capacity / 4) {
    why += "The one request is " + Percent(*m.requested, *m.capacity) +
           " of the GPU: look for the single tensor that is so large (clip length, crop, attention "
           "over all tokens). ";
  }
  return why + (wanted > *m.capacity ? "The step needs more memory than there is."
                                     : "The step needs more memory than was left.");
}

std::string WhyFreeYetFailed(const OomMessage& m) {
  if (m.largest && *m.requested > *m.largest) {
    return "The driver gives at most " + FormatAmount(*m.largest) + " in one piece, and " +
           FormatAmount(*m.requested) + " were asked for, however much is free.";
  }
  return FormatAmount(*m.requested) + " were asked for and " + FormatAmount(*m.free) +
         " were free: enough, as far as the message tells. It is measured after the failure, so "
         "another process or rank may have held the memory for that moment; otherwise the driver "
         "gave less than it reports as free (Windows with a small page file, WSL, a MIG slice or "
         "virtual GPU, integrated GPUs).";
}

std::string WhyUnclear(const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  if (ledger.contradictory) {
    return "The message's figures contradict each other, so it cannot be said where the memory "
           "went.";
  }
  std::string why;
  if (m.requested) why += FormatAmount(*m.requested) + " were asked for. ";
  std::string missing;
  for (const auto& [name, value] :
       {std::pair<const char*, const std::optional<int64_t>*>{"the amount asked for", &m.requested},
        {"the capacity", &m.capacity},
        {"the allocated amount", &m.allocated},
        {"the free amount", &m.free}}) {
    if (*value) continue;
    missing += (missing.empty() ? "" : ", ") + std::string(name);
  }
  return why + "Missing or unusable in the message: " + missing +
         ". Without it the cause cannot be told.";
}

std::string WhyGpu(const GpuLedger& ledger, OomCause cause) {
  const OomMessage& m = ledger.message;
  switch (cause) {
    case OomCause::kNotOurs:
    case OomCause::kNotOursOrCache:
      return WhyNotOurs(ledger);
    case OomCause::kFragmented:
      return WhyFragmented(ledger);
    case OomCause::kTensors:
      return WhyTensors(ledger);
    case OomCause::kTooLarge:
      return "The one request is larger than all of " + GpuName(m) + ", which has " +
             FormatAmount(*m.capacity) +
             ". Neither other processes nor fragmentation matter. Look for the single tensor that "
             "is so large: clip length, crop, attention over all tokens, a wrong dimension.";
    case OomCause::kOwnLimit:
      return "The process limits itself to " + FormatAmount(*m.allowed) +
             " (set_per_process_memory_fraction), has " + FormatAmount(*m.allocated) +
             " in tensors and asked for " + FormatAmount(*m.requested) +
             " more. The GPU itself was not asked.";
    case OomCause::kFreeYetFailed:
      return WhyFreeYetFailed(m);
    default:
      return WhyUnclear(ledger);
  }
}

std::string AdviceOthers(const OomMessage& m) {
  std::string text = "See who else is on " + GpuName(m) +
                     " while the run is going: `kinefit memory` or nvidia-smi";
  if (m.source == "HIP") text = "See who else is on " + GpuName(m) + ": rocm-smi --showpids";
  if (m.source == "XPU") text = "See who else is on " + GpuName(m) + ": xpu-smi ps";
  if (!m.others.empty())
    text += "; `ps -o pid,user,etime,args -p " + ListProcesses(m, ",", false) + "`";
  return text +
         ". Often it is what an earlier crash left behind, or another rank of the same job that "
         "took the wrong device. End it, or use another GPU (CUDA_VISIBLE_DEVICES; a process "
         "counts "
         "only the GPUs listed there).";
}

std::string AdviceCache(const OomMessage& m) {
  if (m.source == "XPU") return "Give the cache back now and then: torch.xpu.empty_cache().";
  const std::string variable =
      m.source == "HIP" ? "PYTORCH_HIP_ALLOC_CONF" : "PYTORCH_CUDA_ALLOC_CONF";
  return "Let the cache be used again: set " + variable +
         "=expandable_segments:True (PyTorch 2.1 and later) or " + variable +
         "=max_split_size_mb:128 (from 1.10 on); keep shapes the same from step to step.";
}

std::string AdvicePlan(const Diagnosis& d, const std::string& condition = "") {
  const OomMessage& m = d.message;
  std::string text = condition.empty() ? "Make the step fit" : condition + ": make the step fit";
  if (d.available) text += " into the " + FormatAmount(*d.available) + " there are";
  text += ": `kinefit plan CONFIG -s device=cuda";
  if (m.allowed && d.available) {
    text += " --memory " + AmountOption(*d.available);
  } else if (m.capacity) {
    text += " --memory " + AmountOption(*m.capacity);
    if (d.available && *m.capacity > *d.available) {
      text += " --in-use " + AmountOption(*m.capacity - *d.available);
    }
  }
  return text +
         "` finds the fastest way that fits (recomputing, or smaller micro-batches with "
         "accumulation): same effective batch, same learning rate.";
}

std::vector<std::string> AdviceGpu(const Diagnosis& d, const GpuLedger& ledger) {
  const OomMessage& m = ledger.message;
  const std::string others = AdviceOthers(m);
  const std::string cache = AdviceCache(m);
  const std::string plan = AdvicePlan(d);
  if (m.source == "MPS") {
    return {plan,
            "The limit is the system's recommendation; PYTORCH_MPS_HIGH_WATERMARK_RATIO "
            "raises it, at the risk that the whole machine swaps."};
  }
  switch (d.cause) {
    case OomCause::kNotOurs:
      return m.unused && IsSignificant(*m.unused, m)
                 ? std::vector<std::string>{others, cache, AdvicePlan(d, "If they must stay")}
                 : std::vector<std::string>{others, AdvicePlan(d, "If they must stay")};
    case OomCause::kNotOursOrCache:
      return {others, "If nobody else is there, it is this process's own cache. " + cache,
              "To know for sure, read the whole message (it goes on with \"reserved in total by "
              "PyTorch\") or print torch.cuda.memory_summary().",
              AdvicePlan(d, "If neither can be changed")};
    case OomCause::kFragmented:
      return IsSignificant(ledger.foreign, m) ? std::vector<std::string>{cache, others, plan}
                                              : std::vector<std::string>{cache, plan};
    case OomCause::kTensors: {
      std::vector<std::string> advice = {plan};
      if (IsSignificant(ledger.foreign, m)) advice.push_back(others);
      if (IsSignificant(m.unused.value_or(0), m)) advice.push_back(cache);
      if (IsSignificant(m.graphs.value_or(0), m)) {
        advice.emplace_back("CUDA graphs keep their memory for good: capture fewer shapes.");
      }
      advice.emplace_back(
          "Further: 16-bit precision, a smaller crop or fewer frames, smaller "
          "batches in validation.");
      return advice;
    }
    case OomCause::kTooLarge:
      return {
          "Find the operation in the traceback above the message; what it makes is too large, "
          "not the sum of everything.",
          AdvicePlan(d, "If it grows with the batch")};
    case OomCause::kOwnLimit:
      return {
          "Raise or remove the limit: torch.cuda.set_per_process_memory_fraction, "
          "per_process_memory_fraction in PYTORCH_CUDA_ALLOC_CONF, or the serving program's "
          "option for it.",
          AdvicePlan(d, "If it must stay")};
    case OomCause::kFreeYetFailed:
      if (m.largest) return {AdvicePlan(d, "Ask for less at once")};
      return {others, "On Windows enlarge the page file; the driver needs it to back GPU memory.",
              cache};
    default:
      return {"Look for the whole message in the log, and give that to `kinefit explain-oom`.",
              others, plan};
  }
}

void SetBudgets(const GpuLedger& ledger, Diagnosis* d) {
  const OomMessage& m = d->message;
  if (!m.capacity || ledger.contradictory) return;
  const int64_t alone = *m.capacity - (m.process ? ledger.rest : 0);
  // Of a message without all figures too little is known about the rest.
  const int64_t rest = m.free && m.allocated ? ledger.rest : 0;
  const int64_t available = std::min(*m.capacity - ledger.others - rest, alone);
  if (available > 0) d->available = std::min(available, m.allowed.value_or(available));
  if (alone > 0) d->if_alone = std::min(alone, m.allowed.value_or(alone));
}

Diagnosis DiagnoseGpu(const OomMessage& message) {
  GpuLedger ledger = MakeGpuLedger(message);
  Diagnosis d;
  d.message = ledger.message;
  d.headline = message.source + " out of memory on " + GpuName(message);
  d.shares = ledger.shares;
  d.notes = message.doubts;
  d.notes.insert(d.notes.end(), ledger.notes.begin(), ledger.notes.end());
  d.cause = FindCause(ledger);
  SetBudgets(ledger, &d);
  d.why = WhyGpu(ledger, d.cause);
  d.advice = AdviceGpu(d, ledger);
  return d;
}

}  // namespace

std::string NameOf(OomCause cause) {
  static const std::map<OomCause, std::string> kNames = {
      {OomCause::kNotOurs, "not_ours"},
      {OomCause::kNotOursOrCache, "not_ours_or_cache"},
      {OomCause::kFragmented, "fragmented"},
      {OomCause::kTensors, "tensors"},
      {OomCause::kTooLarge, "too_large"},
      {OomCause::kOwnLimit, "own_limit"},
      {OomCause::kFreeYetFailed, "free_yet_failed"},
      {OomCause::kUnclear, "unclear"},
      {OomCause::kBudget, "budget"},
      {OomCause::kHostMemory, "host_memory"},
      {OomCause::kSharedMemory, "shared_memory"},
  };
  return kNames.at(cause);
}

std::string NameOf(Holder holder) {
  static const std::map<Holder, std::string> kNames = {
      {Holder::kTensors, "tensors"},
      {Holder::kGraphs, "graphs"},
      {Holder::kCache, "cache"},
      {Holder::kOwnOther, "own_other"},
      {Holder::kOtherProcess, "other_process"},
      {Holder::kNotLive, "not_live"},
      {Holder::kNotPyTorch, "not_pytorch"},
      {Holder::kUnattributed, "unattributed"},
      {Holder::kFree, "free"},
      {Holder::kUnclear, "unclear"},
      {Holder::kElsewhere, "elsewhere"},
      {Holder::kRounding, "rounding"},
  };
  return kNames.at(holder);
}

Diagnosis Diagnose(const OomMessage& message) {
  return message.kind == OomKind::kGpu ? DiagnoseGpu(message) : DiagnoseWithoutFigures(message);
}

std::vector<std::string> DiagnoseTogether(const std::vector<Diagnosis>& diagnoses) {
  std::map<int64_t, std::set<int64_t>> ranks_of_gpu;
  bool gpu = false;
  bool killed = false;
  for (const Diagnosis& d : diagnoses) {
    const OomMessage& m = d.message;
    gpu = gpu || m.kind == OomKind::kGpu;
    killed = killed || m.kind == OomKind::kKilled;
    if (m.kind == OomKind::kGpu && m.gpu && m.rank) ranks_of_gpu[*m.gpu].insert(*m.rank);
  }
  std::vector<std::string> sentences;
  for (const auto& [number, ranks] : ranks_of_gpu) {
    if (ranks.size() < 2) continue;
    std::string names;
    for (const int64_t rank : ranks) names += (names.empty() ? "" : ", ") + std::to_string(rank);
    sentences.push_back("Ranks " + names + " all failed on GPU " + std::to_string(number) +
                        ". Unless each sees only its own GPU (CUDA_VISIBLE_DEVICES), they share "
                        "one: every rank must choose its own device.");
  }
  if (gpu && killed) {
    sentences.emplace_back(
        "A GPU ran out of memory and a process was ended by SIGKILL as well. Launchers end the "
        "other ranks that way when one fails, so the GPU message is the one to act on.");
  }
  return sentences;
}

}  // namespace kinefit
