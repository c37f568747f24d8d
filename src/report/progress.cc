#include "report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "report/format.h"
#include "report/table.h"

namespace kinefit {
namespace {

// The loss, and where there are several streams what each adds to it.
std::string LossText(const ProgressStep& step) {
  std::string text = fmt::format("loss {:.4f}", step.loss);
  if (step.losses.size() < 2) return text;
  std::string parts;
  for (const auto& [stream, loss] : step.losses) {
    parts += (parts.empty() ? "" : ", ") + fmt::format("{} {:.3f}", stream, loss);
  }
  return text + " (" + parts + ")";
}

constexpr size_t kEtaWindow = 100;      // steps; long enough to be calm, short enough to follow
constexpr double kRedrawSeconds = 0.1;  // faster than this nobody can read
constexpr double kWaitWarning = 0.2;    // share of the time spent waiting that is worth a colour

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t TotalEpochs(const ProgressStep& step) {
  if (step.steps_per_epoch <= 0) return 0;
  return (step.total_iterations + step.steps_per_epoch - 1) / step.steps_per_epoch;
}

double WaitShare(double wait, double seconds) { return seconds > 0 ? wait / seconds : 0; }

double Rate(int64_t samples, double seconds) {
  return seconds > 0 ? static_cast<double>(samples) / seconds : 0;
}

struct Part {
  std::string text;
  int importance;  // the least important parts go first when the line is too long
  const char* colour = "";
};

std::vector<Part> LineParts(const ProgressStep& step, double eta) {
  const double wait = WaitShare(step.wait_seconds, step.seconds);
  return {
      {fmt::format("epoch {}/{}", step.epoch + 1, TotalEpochs(step)), 9, "\x1b[1m"},
      {fmt::format("{}/{}", step.step_in_epoch + 1, step.steps_per_epoch), 8},
      {step.skipped ? "loss not finite, step skipped" : LossText(step), 7,
       step.skipped ? "\x1b[31m" : ""},
      {fmt::format("top-1 {:.1f}%", 100 * step.top1), 5},
      {fmt::format("lr {:.3g}", step.lr), 1},
      {fmt::format("{:.1f} clips/s", Rate(step.samples, step.seconds)), 4},
      {fmt::format("wait {:.0f}%", 100 * wait), 3, wait > kWaitWarning ? "\x1b[33m" : ""},
      {FormatBytes(step.memory_bytes), 2},
      {"ETA " + FormatDuration(eta), 6, "\x1b[36m"},
  };
}

std::string Join(const std::vector<Part>& parts, bool colour) {
  std::string line;
  for (const Part& part : parts) {
    if (!line.empty()) line += "  ";
    const bool painted = colour && *part.colour != '\0';
    line += painted ? part.colour + part.text + "\x1b[0m" : part.text;
  }
  return line;
}

// The parts in one line of at most `columns`.
std::string FitLine(std::vector<Part> parts, int64_t columns, bool colour) {
  while (parts.size() > 1 && DisplayWidth(Join(parts, false)) > columns) {
    parts.erase(std::min_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.importance < b.importance;
    }));
  }
  const std::string plain = Join(parts, false);
  if (DisplayWidth(plain) > columns) return std::string(PrefixOfWidth(plain, columns));
  return Join(parts, colour);
}

std::string EpochLine(const EpochSummary& epoch, double eta) {
  std::string line = fmt::format("epoch {}/{} done", epoch.epoch + 1, epoch.epochs);
  if (epoch.samples > 0) {
    line += fmt::format("  loss {:.4f}  top-1 {:.1f}%", epoch.loss, 100 * epoch.top1);
  }
  line += fmt::format("  {:.1f} clips/s  wait {:.0f}%  took {}", Rate(epoch.samples, epoch.seconds),
                      100 * WaitShare(epoch.wait_seconds, epoch.seconds),
                      FormatDuration(epoch.seconds));
  if (epoch.skipped > 0) line += fmt::format("  skipped steps: {}", epoch.skipped);
  if (eta > 0) line += "  ETA " + FormatDuration(eta);
  return line;
}

}  // namespace

bool EpochMeter::Add(const ProgressStep& step, EpochSummary* summary) {
  if (current_.steps == 0 || current_.epoch != step.epoch) {
    current_ = EpochSummary{};
    current_.epoch = step.epoch;
  }
  current_.epochs = TotalEpochs(step);
  ++current_.steps;
  current_.seconds += step.seconds;
  current_.wait_seconds += step.wait_seconds;
  if (step.skipped) {
    ++current_.skipped;
  } else {
    // Kept as sums until the epoch ends.
    current_.samples += step.samples;
    current_.loss += step.loss * static_cast<double>(step.samples);
    current_.top1 += step.top1 * static_cast<double>(step.samples);
  }
  const bool training_over = step.iteration >= step.total_iterations;
  if (step.step_in_epoch + 1 < step.steps_per_epoch && !training_over) return false;
  *summary = current_;
  const double samples = static_cast<double>(std::max<int64_t>(current_.samples, 1));
  summary->loss /= samples;
  summary->top1 /= samples;
  current_ = EpochSummary{};
  return true;
}

EtaEstimator::EtaEstimator() : seconds_left_(std::numeric_limits<double>::quiet_NaN()) {}

void EtaEstimator::Add(const ProgressStep& step, double now) {
  if (epoch_ >= 0 && step.epoch != epoch_) {
    pause_sum_ += std::max(0.0, now - step.seconds - last_end_);
    ++pauses_;
  }
  epoch_ = step.epoch;
  last_end_ = now;
  recent_.push_back(step.seconds);
  recent_sum_ += step.seconds;
  if (recent_.size() > kEtaWindow) {
    recent_sum_ -= recent_.front();
    recent_.pop_front();
  }
  const auto steps_left =
      static_cast<double>(std::max<int64_t>(step.total_iterations - step.iteration, 0));
  const double per_step = recent_sum_ / static_cast<double>(recent_.size());
  seconds_left_ = steps_left * per_step;
  if (pauses_ > 0 && step.steps_per_epoch > 0) {
    // The pause after the current epoch is still to come, also at its last step.
    const int64_t epochs_left = std::max<int64_t>(TotalEpochs(step) - step.epoch, 0);
    seconds_left_ += static_cast<double>(epochs_left) * pause_sum_ / static_cast<double>(pauses_);
  }
}

Terminal DetectTerminal(int file_descriptor) {
  Terminal terminal;
  const char* kind = std::getenv("TERM");
  terminal.live = isatty(file_descriptor) == 1 && kind != nullptr && std::string(kind) != "dumb";
  const char* no_colour = std::getenv("NO_COLOR");
  terminal.colour = terminal.live && (no_colour == nullptr || *no_colour == '\0');
  terminal.columns = [file_descriptor]() -> int64_t {
    winsize size{};
    if (ioctl(file_descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
  };
  return terminal;
}

Progress::Progress(std::ostream& out, Terminal terminal, int64_t log_every,
                   std::function<double()> clock)
    : out_(out),
      terminal_(std::move(terminal)),
      log_every_(std::max<int64_t>(log_every, 1)),
      clock_(clock ? std::move(clock) : SteadySeconds) {}

Progress::~Progress() { Finish(); }

void Progress::Step(const ProgressStep& step) {
  const double now = clock_();
  eta_.Add(step, now);
  EpochSummary summary;
  const bool epoch_ended = meter_.Add(step, &summary);
  const std::vector<Part> parts = LineParts(step, eta_.seconds_left());
  if (terminal_.live) {
    if (epoch_ended || now - last_draw_ >= kRedrawSeconds) {
      // One column stays free: some terminals wrap as soon as the last one is written.
      const int64_t columns = terminal_.columns ? terminal_.columns() : 80;
      live_line_ = FitLine(parts, std::max<int64_t>(columns - 1, 1), terminal_.colour);
      Draw(live_line_);
      last_draw_ = now;
    }
  } else if (step.iteration % log_every_ == 0 || step.skipped) {
    out_ << Join(parts, false) << '\n' << std::flush;
  }
  if (epoch_ended) Message(EpochLine(summary, eta_.seconds_left()));
}

void Progress::Message(const std::string& text) {
  if (terminal_.live) out_ << "\r\x1b[K";
  out_ << text << '\n';
  if (terminal_.live) out_ << live_line_;
  out_ << std::flush;
}

void Progress::Note(const std::string& text) {
  if (!terminal_.live) return;
  const int64_t columns = terminal_.columns ? terminal_.columns() : 80;
  live_line_ = std::string(PrefixOfWidth(text, std::max<int64_t>(columns - 1, 1)));
  Draw(live_line_);
}

void Progress::Finish() {
  if (!terminal_.live || live_line_.empty()) return;
  live_line_.clear();
  Draw("");
}

void Progress::Draw(const std::string& line) { out_ << '\r' << line << "\x1b[K" << std::flush; }

}  // namespace kinefit
