#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace kinefit {

// One optimizer step as the reports need it.
struct ProgressStep {
  int64_t epoch = 0;          // 0-based
  int64_t step_in_epoch = 0;  // 0-based
  int64_t steps_per_epoch = 0;
  int64_t iteration = 0;  // steps since the start of training, this one included
  int64_t total_iterations = 0;
  double loss = 0;                                     // mean over the samples of the step
  std::vector<std::pair<std::string, double>> losses;  // per stream
  double top1 = 0;                                     // in [0, 1]
  double lr = 0;
  double grad_norm = 0;
  int64_t samples = 0;
  double seconds = 0;       // wall time of the step, waiting included
  double wait_seconds = 0;  // of which waiting for data
  int64_t memory_bytes = 0;
  int64_t tensor_bytes = 0;
  bool skipped = false;  // the update was skipped (NaN guard); loss is not meaningful
};

// Means over the steps of one epoch, weighted by samples. After a resume in mid-epoch only the
// steps of this process are in it (`steps` says how many).
struct EpochSummary {
  int64_t epoch = 0;
  int64_t epochs = 0;  // the whole training, rounded up
  int64_t steps = 0;
  int64_t skipped = 0;
  int64_t samples = 0;  // of the steps that were not skipped
  double loss = 0;
  double top1 = 0;
  double seconds = 0;
  double wait_seconds = 0;
};

// Collects EpochSummary. Add() returns true at the last step of an epoch or of
// the training, with `*summary` filled.
class EpochMeter {
 public:
  bool Add(const ProgressStep& step, EpochSummary* summary);

 private:
  EpochSummary current_;
};

// Estimates what is left: the mean time of the last steps of *this* process times the steps left,
// plus the mean pause between epochs (validation, checkpoints) times the epochs left. Correct from
// the first step after a resume, because steps of earlier processes do not enter.
class EtaEstimator {
 public:
  EtaEstimator();
  // `now`: seconds on a steady clock when the step ended.
  void Add(const ProgressStep& step, double now);
  // NaN before the first step.
  double seconds_left() const { return seconds_left_; }

 private:
  std::deque<double> recent_;
  double recent_sum_ = 0;
  double pause_sum_ = 0;
  int64_t pauses_ = 0;
  int64_t epoch_ = -1;
  double last_end_ = 0;
  double seconds_left_;
};

// Where progress goes. For a file, a pipe or a dumb terminal `live` is false.
struct Terminal {
  bool live = false;
  bool colour = false;               // only ever with `live`
  std::function<int64_t()> columns;  // asked before every redraw; empty: 80
};

// What the file descriptor is: live if it is a terminal and TERM is not "dumb", coloured unless
// NO_COLOR is set to anything but "" (https://no-color.org).
Terminal DetectTerminal(int file_descriptor);

// Shows a training run: on a terminal one live line, redrawn in place and cut to the width by
// leaving out the least important parts; elsewhere one plain line every `log_every` iterations and
// one per epoch. Not thread-safe. `out` must outlive it.
class Progress {
 public:
  // `clock`: seconds on a steady clock; empty: the real one.
  Progress(std::ostream& out, Terminal terminal, int64_t log_every,
           std::function<double()> clock = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Step(const ProgressStep& step);
  // A permanent line; on a terminal the live line moves below it.
  void Message(const std::string& text);
  // A live note for something that takes a while ("validating 120/400"); nothing when not live.
  void Note(const std::string& text);
  // Removes the live line. Called by the destructor.
  void Finish();

 private:
  void Draw(const std::string& line);

  std::ostream& out_;
  Terminal terminal_;
  int64_t log_every_;
  std::function<double()> clock_;
  EpochMeter meter_;
  EtaEstimator eta_;
  std::string live_line_;
  double last_draw_ = -1e9;
};

}  // namespace kinefit
