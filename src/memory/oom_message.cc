#include "memory/oom_message.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <utility>

#include "memory/bytes.h"
#include "memory/squeezed_log.h"
#include "memory/written_amount.h"

namespace kinefit {
namespace {

// All texts here are squeezed: lower case, no blanks (squeezed_log.h).
constexpr size_t kMostMessages = 200;
// Longer than any message with many processes in it.
constexpr size_t kWindow = 4000;
// Two figures rounded to 0.01 GiB may contradict each other by so much.
constexpr int64_t kRounding = int64_t{16} << 20;

// Stands for requests that no machine can serve, whatever their size.
constexpr int64_t kAbsurdRequest = int64_t{1} << 60;
constexpr std::string_view kTried = "triedtoallocate";

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The number that starts at text[i], of at most 18 digits; `i` moves behind it.
std::optional<int64_t> Integer(std::string_view text, size_t* i) {
  int64_t value = 0;
  const size_t begin = *i;
  while (*i < text.size() && IsDigit(text[*i]) && *i - begin < 18) {
    value = value * 10 + (text[(*i)++] - '0');
  }
  if (*i == begin) return std::nullopt;
  return value;
}

std::string Upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper;
}

// Takes over a figure, or says why it cannot be one.
void Put(const std::optional<WrittenAmount>& amount, std::string_view text, const char* what,
         std::optional<int64_t>* target, OomMessage* message) {
  if (!amount) return;
  const std::string written(
      text.substr(amount->begin, std::min<size_t>(amount->end - amount->begin, 60)));
  const std::string says = std::string("The message gives \"") + written + "\" as " + what;
  switch (amount->state) {
    case WrittenAmount::kUsable:
      *target = amount->bytes;
      return;
    case WrittenAmount::kNegative:
      message->doubts.push_back(says + "; memory cannot be negative, so it is not used.");
      return;
    case WrittenAmount::kTooLarge:
      message->doubts.push_back(says + "; no machine has that much, so it is not used.");
      return;
    case WrittenAmount::kNotKnown:
      message->doubts.push_back(says +
                                ": that is 2^64 - 1 bytes, the driver's way of saying that "
                                "it does not know (usual under Windows and WSL).");
      return;
    case WrittenAmount::kNotANumber:
      message->doubts.push_back(says + "; that is no number, so it is not used.");
  }
}

// The amount before the first `keyword` in `text`.
void PutBefore(std::string_view text, std::string_view keyword, const char* what,
               std::optional<int64_t>* target, OomMessage* message) {
  const size_t at = text.find(keyword);
  if (at != std::string_view::npos) Put(AmountBefore(text, at), text, what, target, message);
}

// "(gpu1;39.39gibtotalcapacity;22.45gibalreadyallocated;8.12mibfree;5.00giballowed;...)": PyTorch
// before 2.1. `text` starts behind the parenthesis.
void ReadListForm(std::string_view text, OomMessage* message) {
  const size_t end = std::min(text.find(')'), text.find("ifreservedmemory"));
  text = text.substr(0, std::min<size_t>(end, 400));
  size_t i = 3;  // "gpu", "xpu", "npu"
  message->gpu = Integer(text, &i);
  PutBefore(text, "totalcapacity", "total capacity", &message->capacity, message);
  PutBefore(text, "alreadyallocated", "already allocated", &message->allocated, message);
  PutBefore(text, "free", "free", &message->free, message);
  PutBefore(text, "allowed", "allowed", &message->allowed, message);
  // Up to PyTorch 1.3: what the allocator holds beyond the tensors.
  PutBefore(text, "cached", "cached", &message->unused, message);
  // From 1.4 on: all it holds.
  std::optional<int64_t> reserved;
  PutBefore(text, "reservedintotalbypytorch", "reserved in total by PyTorch", &reserved, message);
  if (!reserved || !message->allocated) return;
  if (*reserved < *message->allocated - kRounding) {
    message->doubts.push_back(
        "The message says that " + FormatAmount(*reserved) + " are reserved and " +
        FormatAmount(*message->allocated) +
        " of them allocated; that cannot be, so the reserved amount is not used.");
  } else {
    message->unused = std::max<int64_t>(*reserved - *message->allocated, 0);
  }
}

// "process1234has16.90gibmemoryinuse.includingnon-pytorchmemory,thisprocesshas22.46gib..."
void ReadProcesses(std::string_view text, OomMessage* message) {
  constexpr std::string_view kHas = "memoryinuse";
  size_t from = 0;
  for (size_t at = text.find(kHas); at != std::string_view::npos; at = text.find(kHas, from)) {
    const std::string_view sentence = text.substr(from, at - from);
    from = at + kHas.size();
    const std::optional<WrittenAmount> amount = AmountBefore(sentence, sentence.size());
    if (!amount) continue;
    const std::string_view subject = sentence.substr(0, amount->begin);
    if (EndsWith(subject, "thisprocesshas")) {
      Put(amount, sentence, "this process's memory", &message->process, message);
      continue;
    }
    const size_t process = subject.rfind("process");
    if (process == std::string_view::npos) continue;
    size_t i = process + 7;
    const std::optional<int64_t> pid = Integer(subject, &i);
    if (!pid || subject.substr(i) != "has") continue;
    GpuProcess other;
    other.pid = *pid;
    Put(amount, sentence, ("process " + std::to_string(*pid) + "'s memory").c_str(), &other.bytes,
        message);
    message->others.push_back(other);
  }
}

// ".gpu0hasatotalcapacityof39.39gibofwhich8.12mibisfree...": PyTorch 2.1 and later (2.1 itself
// spells it "capacty"). `text` starts behind the requested amount.
void ReadSentenceForm(std::string_view text, OomMessage* message) {
  const size_t unallocated = text.find("unallocated");
  if (unallocated != std::string_view::npos) text = text.substr(0, unallocated + 11);
  const size_t has = text.find("hasatotalcapac");
  if (has == std::string_view::npos || has > 40) return;
  size_t device = has;
  while (device > 0 && IsDigit(text[device - 1])) --device;
  message->gpu = Integer(text, &device);
  const size_t of = text.find("of", has + 14);
  if (of == std::string_view::npos) return;
  Put(AmountAt(text, of + 2), text, "total capacity", &message->capacity, message);
  PutBefore(text, "isfree", "free", &message->free, message);
  PutBefore(text, "allowed;", "allowed", &message->allowed, message);
  PutBefore(text, "isallocatedbypytorch", "allocated by PyTorch", &message->allocated, message);
  PutBefore(text, "allocatedinprivatepools", "allocated in private pools", &message->graphs,
            message);
  PutBefore(text, "isreservedbypytorch", "reserved but unallocated", &message->unused, message);
  ReadProcesses(text, message);
}

// "mpsbackendoutofmemory(mpsallocated:9.57gib,otherallocations:17.35gib,maxallowed:27.20gib)."
// `text` starts behind the parenthesis. The limit stands for the capacity.
void ReadMpsForm(std::string_view text, OomMessage* message) {
  const auto after = [&](std::string_view keyword, const char* what,
                         std::optional<int64_t>* target) {
    const size_t at = text.find(keyword);
    if (at != std::string_view::npos) {
      Put(AmountAt(text, at + keyword.size()), text, what, target, message);
    }
  };
  std::optional<int64_t> other;
  after("mpsallocated:", "allocated", &message->allocated);
  after("otherallocations:", "other allocations", &other);
  after("maxallowed:", "the limit", &message->capacity);
  if (message->allocated && other) message->process = *message->allocated + *other;
  if (message->capacity && message->process && *message->process <= *message->capacity) {
    message->free = *message->capacity - *message->process;
  }
}

// Figures that contradict each other: which one is wrong cannot be known.
void CrossCheck(OomMessage* message) {
  OomMessage& m = *message;
  if (m.capacity && *m.capacity == 0) {
    m.doubts.push_back("The message says that the GPU has no memory at all; that is not used.");
    m.capacity.reset();
  }
  if (m.allowed && *m.allowed == 0) {
    m.doubts.push_back(
        "The message says that the process allows itself nothing; that is not used.");
    m.allowed.reset();
  }
  if (m.free && m.capacity && *m.free > *m.capacity + kRounding) {
    m.doubts.push_back("The message says that " + FormatAmount(*m.free) + " are free of " +
                       FormatAmount(*m.capacity) + "; that cannot be, so neither is used.");
    m.free.reset();
    m.capacity.reset();
  }
  if (m.graphs && (!m.allocated || *m.graphs > *m.allocated + kRounding)) {
    m.doubts.push_back(
        "The message's amount in private pools is more than all that is allocated; "
        "that cannot be, so it is not used.");
    m.graphs.reset();
  }
  const int64_t pytorch = m.allocated.value_or(0) + m.unused.value_or(0);
  if (m.process && *m.process < pytorch - 2 * kRounding) {
    m.doubts.push_back("The message says that this process has " + FormatAmount(*m.process) +
                       " in use, but PyTorch alone holds " + FormatAmount(pytorch) +
                       " of it: the driver did not tell the process's own share (usual in "
                       "containers), so it is not used.");
    m.process.reset();
  }
}

// Whose memory: the word that "outofmemory" follows.
std::string DeviceBefore(std::string_view before) {
  for (const std::string_view name : {"hip", "xpu", "npu", "mps"}) {
    if (EndsWith(before, name)) return Upper(name);
  }
  return EndsWith(before, "mpsbackend") ? "MPS" : "CUDA";
}

// `before` ends where "triedtoallocate" starts, `rest` starts behind the amount.
void ReadGpuFigures(std::string_view before, std::string_view rest, OomMessage* message) {
  // "Current platform can NOT allocate memory block with size larger than 4GB!"
  const size_t block = before.rfind("sizelargerthan");
  if (block != std::string_view::npos) {
    message->source = "XPU";
    Put(AmountAt(before, block + 14), before, "the largest piece", &message->largest, message);
  }
  if (message->source == "MPS") {
    ReadMpsForm(before, message);
  } else if (rest.size() > 4 && rest[0] == '(' && rest.substr(2, 2) == "pu") {
    ReadListForm(rest.substr(1), message);
  } else {
    ReadSentenceForm(rest, message);
  }
}

class Finder {
 public:
  explicit Finder(std::string_view log) : log_(log), text_(log_.text()) {}

  std::vector<OomMessage> Run(int64_t* left_out);

 private:
  void OnTriedToAllocate(size_t at);
  void OnOutOfMemory(size_t at);
  void OnAllocFailed(size_t at);
  void OnHostWords(size_t at);
  void OnNvmlAssert(size_t at);
  void OnCudnnSearch(size_t at);
  void OnCudaErrorName(size_t at);
  void OnKilledProcess(size_t at);
  void OnJobLimit(size_t at);
  void OnSigkill(size_t at);
  void OnCode137(size_t at);
  void OnWorker(size_t at);
  void OnSharedMemory(size_t at);
  void OnHostAllocation(size_t at);

  // What stands before and behind a place.
  std::string_view Before(size_t at, size_t most) const {
    const size_t begin = at > most ? at - most : 0;
    return text_.substr(begin, at - begin);
  }
  std::string_view Behind(size_t at, size_t most = kWindow) const {
    return at < text_.size() ? text_.substr(at, most) : std::string_view();
  }

  // Keeps the message if it is a new one; `identity` is what makes it the same as another.
  void Add(OomMessage message, size_t position, std::string_view identity);
  void AddBare(OomKind kind, const std::string& source, size_t position);
  void AddKilled(size_t position, const std::string& program, std::optional<int64_t> pid);

  const SqueezedLog log_;
  const std::string_view text_;
  std::vector<OomMessage> found_;
  std::map<std::string, size_t> known_;
  int64_t left_out_ = 0;
};

void Finder::Add(OomMessage message, size_t position, std::string_view identity) {
  message.rank = log_.RankAt(position);
  std::string key = std::to_string(static_cast<int>(message.kind)) + message.source + "/" +
                    std::to_string(message.rank.value_or(-1)) + "/";
  key += identity;
  const auto known = known_.find(key);
  if (known != known_.end()) {
    ++found_[known->second].count;
    return;
  }
  if (found_.size() == kMostMessages) {
    ++left_out_;
    return;
  }
  const SqueezedLog::Place place = log_.PlaceOf(position);
  message.line = place.line;
  message.excerpt = place.excerpt;
  known_.emplace(std::move(key), found_.size());
  found_.push_back(std::move(message));
}

void Finder::AddBare(OomKind kind, const std::string& source, size_t position) {
  OomMessage message;
  message.kind = kind;
  message.source = source;
  Add(std::move(message), position, "");
}

void Finder::AddKilled(size_t position, const std::string& program, std::optional<int64_t> pid) {
  OomMessage message;
  message.kind = OomKind::kKilled;
  message.program = program;
  message.pid = pid;
  Add(std::move(message), position, program);
}

// "cudaoutofmemory.triedtoallocate62.00mib(gpu1;..." and what else asks for memory in these words.
void Finder::OnTriedToAllocate(size_t at) {
  const std::string_view before = Before(at, 200);
  if (EndsWith(before, "you")) return OnHostAllocation(at);
  std::string_view text = Behind(at + kTried.size());
  text = text.substr(0, text.find(kTried));  // no further than the next message
  OomMessage message;
  const std::optional<WrittenAmount> amount = AmountAt(text, 0);
  if (StartsWith(text, "morethan1ebmemory") ||
      (amount && amount->state == WrittenAmount::kTooLarge)) {
    message.requested = kAbsurdRequest;
    message.doubts.emplace_back(
        "No machine has the amount asked for: its size was computed wrongly (a negative or "
        "overflowing dimension).");
  } else {
    Put(amount, text, "the amount asked for", &message.requested, &message);
  }
  const std::string_view rest = text.substr(amount ? amount->end : 0);
  const size_t phrase = before.rfind("outofmemory");
  const bool has_phrase = phrase != std::string_view::npos && before.size() - phrase < 120;
  const size_t position = has_phrase ? at - (before.size() - phrase) : at;
  if (amount && Contains(rest.substr(0, 60), "ofthebudgetof")) {
    message.kind = OomKind::kBudget;
    PutBefore(rest, "ofthebudgetof", "in use", &message.allocated, &message);
    Put(AmountAt(rest, rest.find("ofthebudgetof") + 13), rest, "the budget", &message.capacity,
        &message);
    return Add(std::move(message), position, text.substr(0, 120));
  }
  if (amount && StartsWith(rest, ";") && Contains(rest.substr(0, 40), "areinuse")) {
    message.kind = OomKind::kHostAllocation;  // kinefit's allocator without a budget
    message.source = "kinefit";
    PutBefore(rest, "areinuse", "in use", &message.allocated, &message);
    return Add(std::move(message), position, text.substr(0, 80));
  }
  message.source = has_phrase ? DeviceBefore(before.substr(0, phrase)) : "CUDA";
  ReadGpuFigures(before, rest, &message);
  const bool figures = message.capacity || message.allocated || message.free;
  if (!figures && !has_phrase) return;
  if (!figures && !message.requested && message.doubts.empty()) {
    return AddBare(OomKind::kGpuBare, message.source, position);
  }
  CrossCheck(&message);
  // The advice behind the figures differs between versions, and logs go on right behind it.
  const size_t end = std::min({text.find("unallocated"), text.find(')'), size_t{400}});
  Add(std::move(message), position, text.substr(0, std::max<size_t>(end, 20)));
}

// Out of memory without "tried to allocate" behind it.
void Finder::OnOutOfMemory(size_t at) {
  constexpr std::string_view kAnchor = "outofmemory";
  const std::string_view behind = Behind(at + kAnchor.size(), 200);
  const std::string_view before = Before(at, 60);
  const size_t tried = behind.find(kTried);
  if (tried < 3 || (tried < 150 && behind[0] == '(')) return;  // OnTriedToAllocate
  if (StartsWith(behind, ":killedprocess")) return;            // OnKilledProcess
  if (Contains(before, "srun:error:") && EndsWith(before, ":")) {
    return AddBare(OomKind::kHostKilled, "Slurm", at);
  }
  // "CUDA error: out of memory", "CUDA driver error: ...", "cuda runtime error (2) : ...", NCCL's
  // "Cuda failure 2 'out of memory'".
  for (const std::string_view lead : {"cudaerror:", "cudadrivererror:", "cudaruntimeerror(2):",
                                      "cudafailure'", "cudafailure2'", "error=2:"}) {
    if (!EndsWith(before, lead)) continue;
    // Pinned memory is the host's, though CUDA reports that it ran out.
    const std::string around = std::string(Before(at, 800)) + std::string(Behind(at, 400));
    for (const char* pinned : {"pin_memory", "cudahostalloc", "cachinghostallocator"}) {
      if (Contains(around, pinned)) {
        return AddBare(OomKind::kHostAllocation, "pinned memory", at - lead.size());
      }
    }
    return AddBare(OomKind::kGpuBare, "CUDA", at - lead.size());
  }
  if (EndsWith(before, "hiperror:")) return AddBare(OomKind::kGpuBare, "HIP", at - 9);
  if (StartsWith(behind, "error:allocationondevice")) {
    return AddBare(OomKind::kGpuBare, "CUDA", at);
  }
  // What this program itself prints when the host has no more.
  if (EndsWith(before, "kinefit:")) return AddBare(OomKind::kHostAllocation, "kinefit", at);
  // "RuntimeError: CUDA out of memory" cut off, but not "if you encounter CUDA out of memory, ...".
  for (const std::string_view lead : {"cuda", "hip", "xpu"}) {
    if (!EndsWith(before, lead)) continue;
    const size_t begin = before.size() - lead.size();
    if (begin == 0 || text_.size() < 200 || Contains(":'\"`(", before.substr(begin - 1, 1))) {
      AddBare(OomKind::kGpuBare, DeviceBefore(before), at - lead.size());
    }
  }
}

// PyTorch's and Python's words for a host that gives no more: "unable to mmap 4096 bytes from
// file",
// "[Errno 12] Cannot allocate memory" (a fork).
void Finder::OnHostWords(size_t at) {
  const bool map = StartsWith(Behind(at, 12), "unabletommap");
  AddBare(OomKind::kHostAllocation, map ? "PyTorch" : "the system", at);
}

// "NVML_SUCCESS == r INTERNAL ASSERT FAILED": the allocator asked the driver about a GPU that was
// full.
void Finder::OnNvmlAssert(size_t at) {
  if (Contains(Behind(at, 120), "internalassertfailed")) AddBare(OomKind::kGpuBare, "CUDA", at);
}

// cuDNN found no algorithm whose workspace fits into what is left.
void Finder::OnCudnnSearch(size_t at) { AddBare(OomKind::kGpuLibrary, "cuDNN", at); }

void Finder::OnCudaErrorName(size_t at) { AddBare(OomKind::kGpuBare, "CUDA", at); }

// "cublas_status_alloc_failed", "cufft_alloc_failed"
void Finder::OnAllocFailed(size_t at) {
  const std::string_view before = Before(at, 30);
  for (const auto& [prefix, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"cublas_status", "cuBLAS"},
                                                                  {"cudnn_status", "cuDNN"},
                                                                  {"cusolver_status", "cuSOLVER"},
                                                                  {"cusparse_status", "cuSPARSE"},
                                                                  {"cutensor_status", "cuTENSOR"},
                                                                  {"cufft", "cuFFT"}}) {
    if (EndsWith(before, prefix)) AddBare(OomKind::kGpuLibrary, name, at);
  }
}

// "outofmemory:killedprocess25315(python3)total-vm:53312244kb,anon-rss:31451456kb,..."
void Finder::OnKilledProcess(size_t at) {
  const std::string_view text = Behind(at, 400);
  size_t i = 13;
  OomMessage message;
  message.kind = OomKind::kHostKilled;
  message.source = "Linux";
  message.pid = Integer(text, &i);
  if (!message.pid) return;
  if (i < text.size() && (text[i] == '(' || text[i] == ',')) {
    const size_t end = text.substr(0, i + 60).find(')', i);
    if (text[i] == '(' && end != std::string_view::npos) {
      message.program = std::string(text.substr(i + 1, end - i - 1));
    }
  }
  const size_t rss = text.substr(0, i + 200).find("anon-rss:");
  if (rss != std::string_view::npos) {
    Put(AmountAt(text, rss + 9), text, "anon-rss", &message.memory, &message);
  }
  const std::string_view before = Before(at, 700);
  message.container_limit =
      EndsWith(before, "memorycgroupoutofmemory:") || Contains(before, "constraint_memcg");
  Add(std::move(message), at, text.substr(0, i));
}

// Slurm's "Detected 1 oom_kill event in StepId=..." and Kubernetes' "OOMKilled".
void Finder::OnJobLimit(size_t at) {
  OomMessage message;
  message.kind = OomKind::kHostKilled;
  message.container_limit = true;
  message.source = StartsWith(Behind(at, 9), "oomkilled") ? "" : "Slurm";
  // "Some of the step tasks have been OOM Killed" belongs to the former.
  if (message.source.empty() && EndsWith(Before(at, 60), "taskshavebeen")) return;
  Add(std::move(message), at, "");
}

void Finder::OnSigkill(size_t at) { AddKilled(at, "", std::nullopt); }

// "exit code 137", "exited with code 137", "status=137"; 128 + SIGKILL.
void Finder::OnCode137(size_t at) {
  const std::string_view before = Before(at, 12);
  const std::string_view behind = Behind(at + 3, 1);
  if (!behind.empty() && (IsDigit(behind[0]) || behind[0] == '.')) return;
  for (const std::string_view lead :
       {"code", "code:", "code=", "code:=", "status", "status:", "status=", "\"exitcode\":"}) {
    if (EndsWith(before, lead)) return AddKilled(at, "", std::nullopt);
  }
}

// "dataloaderworker(pid46794)iskilledbysignal:buserror."
void Finder::OnWorker(size_t at) {
  const std::string_view text = Behind(at, 200);
  size_t i = text.find("pid");
  std::optional<int64_t> pid;
  if (i < 30) {
    i += StartsWith(text.substr(i), "pid(s)") ? 6 : 3;
    pid = Integer(text, &i);
  }
  const size_t signal = text.find("iskilledbysignal:");
  if (signal == std::string_view::npos || signal > 80) {
    const size_t ended = text.find("exitedunexpectedly");
    if (ended == std::string_view::npos || ended > 120) return;
    OomMessage message;
    message.kind = OomKind::kWorkerEnded;
    message.program = "DataLoader worker";
    message.pid = pid;
    return Add(std::move(message), at, "");
  }
  const std::string_view name = text.substr(signal + 17);
  if (StartsWith(name, "buserror")) return AddBare(OomKind::kSharedMemory, "", at);
  if (StartsWith(name, "killed")) AddKilled(at, "DataLoader worker", pid);
}

void Finder::OnSharedMemory(size_t at) { AddBare(OomKind::kSharedMemory, "", at); }

// "defaultcpuallocator:can'tallocatememory:youtriedtoallocate123456bytes", numpy's "unableto
// allocate1.20gibforanarray", C++'s "std::bad_alloc". `at` is where "triedtoallocate" or another
// anchor starts.
void Finder::OnHostAllocation(size_t at) {
  const std::string_view text = Behind(at, 200);
  OomMessage message;
  message.kind = OomKind::kHostAllocation;
  if (StartsWith(text, "std::bad_alloc")) {
    message.source = "C++";
    return Add(std::move(message), at, "");
  }
  const bool numpy = StartsWith(text, "unabletoallocate");
  message.source = numpy ? "numpy" : "PyTorch";
  const std::optional<WrittenAmount> amount = AmountAt(text, numpy ? 16 : 15);
  if (!amount || (numpy && !StartsWith(text.substr(amount->end), "foranarray"))) return;
  Put(amount, text, "the amount asked for", &message.requested, &message);
  Add(std::move(message), at, text.substr(0, amount->end));
}

// A message about a death that says less than another one in the same log.
void DropEchoes(std::vector<OomMessage>* messages) {
  const auto has = [&](auto predicate) {
    return std::any_of(messages->begin(), messages->end(), predicate);
  };
  const bool measured = has(
      [](const OomMessage& m) { return m.kind == OomKind::kHostKilled && m.memory.has_value(); });
  const bool host = has([](const OomMessage& m) { return m.kind == OomKind::kHostKilled; });
  const bool killed = has([](const OomMessage& m) {
    return m.kind == OomKind::kHostKilled || m.kind == OomKind::kKilled ||
           m.kind == OomKind::kSharedMemory;
  });
  const bool gpu = has([](const OomMessage& m) { return m.kind == OomKind::kGpu; });
  const auto echo = [&](const OomMessage& m) {
    switch (m.kind) {
      case OomKind::kHostKilled:
        return measured && !m.memory;
      case OomKind::kKilled:
        return host;
      case OomKind::kWorkerEnded:
        return killed;
      case OomKind::kGpuBare:
        return gpu;
      default:
        return false;
    }
  };
  messages->erase(std::remove_if(messages->begin(), messages->end(), echo), messages->end());
}

std::vector<OomMessage> Finder::Run(int64_t* left_out) {
  using Handler = void (Finder::*)(size_t);
  const std::vector<std::pair<std::string_view, Handler>> anchors = {
      {"triedtoallocate", &Finder::OnTriedToAllocate},
      {"outofmemory", &Finder::OnOutOfMemory},
      {"cudaerrormemoryallocation", &Finder::OnCudaErrorName},
      {"cuda_error_out_of_memory", &Finder::OnCudaErrorName},
      {"_alloc_failed", &Finder::OnAllocFailed},
      {"killedprocess", &Finder::OnKilledProcess},
      {"oom_killevent", &Finder::OnJobLimit},
      {"oom-killevent", &Finder::OnJobLimit},
      {"oomkilled", &Finder::OnJobLimit},
      {"signal9(sigkill)", &Finder::OnSigkill},
      {"signals.sigkill:9", &Finder::OnSigkill},
      {"exitcode:-9", &Finder::OnSigkill},
      {"137", &Finder::OnCode137},
      {"dataloaderworker", &Finder::OnWorker},
      {"unexpectedbuserrorencounteredinworker", &Finder::OnSharedMemory},
      {"unabletowritetofile</torch_", &Finder::OnSharedMemory},
      {"unabletoallocate", &Finder::OnHostAllocation},
      {"unabletommap", &Finder::OnHostWords},
      {"[errno12]cannotallocatememory", &Finder::OnHostWords},
      {"nvml_success==", &Finder::OnNvmlAssert},
      {"unabletofindanengine", &Finder::OnCudnnSearch},
      {"unabletofindavalidcudnnalgorithm", &Finder::OnCudnnSearch},
      {"novalidconvolutionalgorithms", &Finder::OnCudnnSearch},
      {"std::bad_alloc", &Finder::OnHostAllocation},
  };
  using Searcher = std::boyer_moore_horspool_searcher<std::string_view::const_iterator>;
  std::vector<Searcher> searchers;
  std::vector<size_t> next;
  const auto find = [&](size_t anchor, size_t from) {
    return static_cast<size_t>(std::search(text_.begin() + static_cast<std::ptrdiff_t>(from),
                                           text_.end(), searchers[anchor]) -
                               text_.begin());
  };
  for (size_t i = 0; i < anchors.size(); ++i) {
    searchers.emplace_back(anchors[i].first.begin(), anchors[i].first.end());
    next.push_back(find(i, 0));
  }
  auto killed = log_.killed_lines().begin();
  while (true) {
    const size_t i = static_cast<size_t>(std::min_element(next.begin(), next.end()) - next.begin());
    const size_t line = killed == log_.killed_lines().end() ? text_.size() : *killed - 1;
    if (std::min(next[i], line) == text_.size()) break;
    if (line < next[i]) {
      ++killed;
      AddKilled(line, "", std::nullopt);
      continue;
    }
    (this->*anchors[i].second)(next[i]);
    next[i] = find(i, next[i] + anchors[i].first.size());
  }
  DropEchoes(&found_);
  if (left_out != nullptr) *left_out = left_out_;
  return std::move(found_);
}

}  // namespace

std::vector<OomMessage> FindOomMessages(std::string_view log, int64_t* left_out) {
  return Finder(log).Run(left_out);
}

const std::vector<std::string>& KnownOomMessages() {
  static const std::vector<std::string> kKnown = {
      "\"CUDA out of memory. Tried to allocate ...\" of any PyTorch (also HIP, XPU, MPS)",
      "\"CUDA error: out of memory\", CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED",
      "\"DefaultCPUAllocator: can't allocate memory\", std::bad_alloc, numpy's MemoryError",
      "kinefit's own \"out of memory: tried to allocate ... of the budget\"",
      "the kernel's \"Out of memory: Killed process\", Slurm's oom_kill, OOMKilled",
      "NVML's failed assertion, cuDNN's \"unable to find an engine\" and \"no valid ... "
      "algorithm\"",
      "\"unable to mmap\", \"[Errno 12] Cannot allocate memory\", a failure to pin memory",
      "\"Killed\", exit code 137, exitcode -9, SIGKILL",
      "\"DataLoader worker ... is killed by signal\", bus error in a worker",
  };
  return kKnown;
}

}  // namespace kinefit
