#include "report/json_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "files/error.h"

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

Json Event(const char* name) {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return Json{{"event", name}, {"time", text}};
}

std::string Dump(const Json& json) {
  // Ids and paths need not be UTF-8; the log stays readable all the same.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json Numbers(const std::vector<std::pair<std::string, double>>& values) {
  Json json = Json::object();
  for (const auto& [name, value] : values) json[name] = value;
  return json;
}

[[noreturn]] void ThrowSystemError(const std::string& doing, const std::string& path) {
  throw Error(fmt::format("cannot {} the log: {}", doing, std::strerror(errno)), path,
              "check that the work dir is writable and its disk has space left");
}

}  // namespace

JsonLog::JsonLog(std::string path) : path_(std::move(path)) {
  file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) ThrowSystemError("open", path_);
  try {
    const std::string repaired = RepairTail();
    if (!repaired.empty()) Message(repaired);
  } catch (...) {
    close(file_);
    throw;
  }
}

JsonLog::~JsonLog() { close(file_); }

std::string JsonLog::RepairTail() {
  struct stat status {};
  if (fstat(file_, &status) != 0) ThrowSystemError("read", path_);
  if (!S_ISREG(status.st_mode) || status.st_size == 0) return "";
  // Back to the last line end, in blocks: a torn line may be long (a list of bad clips).
  std::string tail;
  int64_t start = status.st_size;
  size_t line_end = std::string::npos;
  while (start > 0 && line_end == std::string::npos) {
    const int64_t size = std::min<int64_t>(start, 64 * 1024);
    start -= size;
    std::string block(size, '\0');
    if (pread(file_, block.data(), size, start) != size) ThrowSystemError("read", path_);
    tail = block + tail;
    line_end = block.rfind('\n');
  }
  const size_t torn = line_end == std::string::npos ? 0 : line_end + 1;
  const std::string line = tail.substr(torn);
  if (line.empty()) return "";
  if (Json::accept(line)) {
    WriteLine("");
    return "";
  }
  if (ftruncate(file_, start + static_cast<int64_t>(torn)) != 0) ThrowSystemError("repair", path_);
  return fmt::format("removed an unfinished last line of {} bytes, left by a run that was killed",
                     line.size());
}

void JsonLog::Step(const ProgressStep& step) {
  Json json = Event("step");
  json["epoch"] = step.epoch + 1;
  json["step_in_epoch"] = step.step_in_epoch;
  json["steps_per_epoch"] = step.steps_per_epoch;
  json["iteration"] = step.iteration;
  json["loss"] = step.loss;
  json["losses"] = Numbers(step.losses);
  json["top1"] = step.top1;
  json["lr"] = step.lr;
  json["grad_norm"] = step.grad_norm;
  json["samples"] = step.samples;
  json["seconds"] = step.seconds;
  json["wait_seconds"] = step.wait_seconds;
  json["memory_bytes"] = step.memory_bytes;
  json["tensor_bytes"] = step.tensor_bytes;
  if (step.skipped) json["skipped"] = true;
  WriteLine(Dump(json));
  EpochSummary summary;
  if (meter_.Add(step, &summary)) Epoch(summary);
}

void JsonLog::Epoch(const EpochSummary& summary) {
  Json json = Event("epoch");
  json["epoch"] = summary.epoch + 1;
  json["steps"] = summary.steps;
  json["skipped"] = summary.skipped;
  json["samples"] = summary.samples;
  json["loss"] = summary.loss;
  json["top1"] = summary.top1;
  json["seconds"] = summary.seconds;
  json["wait_seconds"] = summary.wait_seconds;
  WriteLine(Dump(json));
}

void JsonLog::Validation(int64_t epoch, const std::vector<std::pair<std::string, double>>& metrics,
                         bool best) {
  Json json = Event("val");
  json["epoch"] = epoch + 1;
  json["metrics"] = Numbers(metrics);
  json["best"] = best;
  WriteLine(Dump(json));
}

void JsonLog::Message(const std::string& text) {
  Json json = Event("message");
  json["text"] = text;
  WriteLine(Dump(json));
}

void JsonLog::BadClips(int64_t epoch, const std::vector<std::pair<std::string, std::string>>& clips,
                       int64_t samples) {
  Json json = Event("bad_clips");
  json["epoch"] = epoch + 1;
  json["samples"] = samples;
  json["clips"] = Json::array();
  for (const auto& [id, reason] : clips) json["clips"].push_back({{"id", id}, {"reason", reason}});
  WriteLine(Dump(json));
}

void JsonLog::Checkpoint(const std::string& checkpoint_path) {
  Json json = Event("checkpoint");
  json["path"] = checkpoint_path;
  WriteLine(Dump(json));
}

void JsonLog::WriteLine(std::string line) {
  line += '\n';
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = write(file_, line.data() + written, line.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) ThrowSystemError("write", path_);
    written += static_cast<size_t>(count);
  }
}

}  // namespace kinefit
