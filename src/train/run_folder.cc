#include "train/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

bool IsNumbered(const std::string& name) {
  for (const std::string prefix : {"epoch_", "iter_"}) {
    const size_t digits = prefix.size();
    if (name.compare(0, digits, prefix) != 0 || name.size() <= digits + 4) continue;
    const size_t end = name.find_first_not_of("0123456789", digits);
    if (end != std::string::npos && end > digits && name.substr(end) == ".pth") return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> RunFolder::Numbered() const {
  // What last.pth points to is the newest whatever the clock said; among the others the time
  // decides, then the number.
  struct Entry {
    bool is_last;
    fs::file_time_type time;
    int64_t number;
    std::string path;
    bool operator<(const Entry& other) const {
      return std::tie(is_last, time, number, path) <
             std::tie(other.is_last, other.time, other.number, other.path);
    }
  };
  std::vector<Entry> found;
  std::error_code error;
  for (fs::directory_iterator entry(work_dir_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!IsNumbered(entry->path().filename().string())) continue;
    std::error_code time_error;
    const fs::file_time_type time = fs::last_write_time(entry->path(), time_error);
    if (time_error) continue;
    std::error_code link_error;
    const bool is_last = fs::equivalent(entry->path(), work_dir_ + "/last.pth", link_error);
    const std::string name = entry->path().filename().string();
    const int64_t number = std::atoll(name.c_str() + name.find('_') + 1);
    found.push_back({is_last && !link_error, time, number, entry->path().string()});
  }
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> paths;
  for (Entry& entry : found) paths.push_back(std::move(entry.path));
  return paths;
}

std::optional<RunFolder::Found> RunFolder::CheckpointToResume(const std::string& resume,
                                                              TrainObserver& observer) {
  MakeFolder(work_dir_);
  RemoveAbandonedTemporaries(work_dir_);
  const std::vector<std::string> numbered = Numbered();
  const bool from_path = resume != "auto" && resume != "never";
  std::error_code unused;
  const bool inside = from_path && fs::equivalent(fs::path(resume).parent_path().empty()
                                                      ? fs::path(".")
                                                      : fs::path(resume).parent_path(),
                                                  work_dir_, unused);
  if (resume != "auto" && !inside && (!numbered.empty() || HasBest())) {
    throw Error("the work dir already holds the checkpoints of a run", work_dir_,
                "set train.resume = \"auto\" to continue that run, or choose another "
                "train.work_dir");
  }
  if (from_path) return Found{resume, ReadCheckpoint(resume)};
  for (const std::string& path : numbered) {
    try {
      return Found{path, ReadCheckpoint(path)};
    } catch (const Error& error) {
      observer.OnMessage("passed over " + path + ": " + error.problem());
    }
  }
  if (numbered.empty()) return std::nullopt;
  throw Error("none of the checkpoints in the work dir can be read", work_dir_,
              "restore one from a backup, or choose another train.work_dir to start anew");
}

std::string RunFolder::PathOf(int64_t iteration, int64_t steps_per_epoch) const {
  if (iteration % steps_per_epoch == 0) {
    return work_dir_ + "/epoch_" + std::to_string(iteration / steps_per_epoch) + ".pth";
  }
  return work_dir_ + "/iter_" + std::to_string(iteration) + ".pth";
}

bool RunFolder::HasBest() const {
  std::error_code unused;
  return fs::exists(BestPath(), unused);
}

void RunFolder::PointLastTo(const std::string& newest) const {
  const std::string next = work_dir_ + "/last.pth.next";
  std::error_code error;
  fs::remove(next, error);
  fs::create_symlink(fs::path(newest).filename(), next, error);
  if (!error) fs::rename(next, work_dir_ + "/last.pth", error);
}

void RunFolder::Prune(int64_t keep, const std::string& newest) const {
  if (keep <= 0) return;
  int64_t kept = 1;  // `newest`
  for (const std::string& path : Numbered()) {
    std::error_code error;
    if (fs::equivalent(path, newest, error) || kept++ < keep) continue;
    fs::remove(path, error);  // one that cannot be removed is in nobody's way
  }
}

}  // namespace kinefit
