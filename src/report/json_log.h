#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "report/progress.h"

namespace kinefit {

// The run's log: JSON lines (https://jsonlines.org), one object per line with "event" ("step",
// "val", "epoch", "message", "bad_clips", "checkpoint") and "time" (UTC, ISO 8601). Appended to, so
// that a resumed run goes on in the same file; steps repeated after a kill appear again, the later
// ones count. Epochs count from 1, as on the screen (docs/formats/log.md). Every line is handed to
// the system with one write. Numbers that are not finite are null. Not thread-safe.
class JsonLog {
 public:
  // Opens or creates `path`. A last line torn by a kill is removed (or, if it is whole but for its
  // line end, terminated), and a message says so. Throws Error if the file cannot be written.
  explicit JsonLog(std::string path);
  ~JsonLog();
  JsonLog(const JsonLog&) = delete;
  JsonLog& operator=(const JsonLog&) = delete;

  // Each throws Error if the line cannot be written (full disk).
  // Step also logs the "epoch" line when the step is the last one of its epoch.
  void Step(const ProgressStep& step);
  void Validation(int64_t epoch, const std::vector<std::pair<std::string, double>>& metrics,
                  bool best);
  void Message(const std::string& text);
  // `clips`: id and reason.
  void BadClips(int64_t epoch, const std::vector<std::pair<std::string, std::string>>& clips,
                int64_t samples);
  void Checkpoint(const std::string& checkpoint_path);

  const std::string& path() const { return path_; }

 private:
  // Ends the file at a line end; returns what was done, "" if nothing.
  std::string RepairTail();
  void Epoch(const EpochSummary& summary);
  void WriteLine(std::string line);

  std::string path_;
  int file_ = -1;
  EpochMeter meter_;
};

}  // namespace kinefit
