#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kinefit {

// A log without what terminals, launchers and mail programs add to it: lower case and without
// blanks, line ends, colour codes, box drawing, quote marks at the start of a line, and
// "[rank1]:" and the like. A message that was wrapped in the middle of a word is whole again.
// Takes time linear in the text and as much memory again; for any bytes. Keeps `text`, which must
// outlive it.
class SqueezedLog {
 public:
  explicit SqueezedLog(std::string_view text);

  const std::string& text() const { return squeezed_; }

  // Where, in text(), a line ends that a shell writes for a program ended by SIGKILL ("Killed",
  // "train.sh: line 3: 4711 Killed  python ..."); ascending, at most the first 1000.
  const std::vector<size_t>& killed_lines() const { return killed_lines_; }

  // Rank of the process that wrote the character at `position` of text(), where its launcher marked
  // the line with it.
  std::optional<int64_t> RankAt(size_t position) const;

  struct Place {
    int64_t line = 0;     // from 1
    std::string excerpt;  // the line, without control characters, at most 200 bytes
  };
  // The line that holds the character at `position` of text(). Rereads at most some 100 KiB.
  Place PlaceOf(size_t position) const;

 private:
  struct Checkpoint {
    size_t squeezed;
    size_t original;
    int64_t line;
    bool starts_line;
  };

  std::string_view original_;
  std::string squeezed_;
  std::vector<Checkpoint> checkpoints_;
  std::vector<size_t> killed_lines_;
  // Where the rank becomes another one; -1: none.
  std::vector<std::pair<size_t, int64_t>> ranks_;
};

}  // namespace kinefit
