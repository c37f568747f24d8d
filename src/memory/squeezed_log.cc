#include "memory/squeezed_log.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace kinefit {
namespace {

// Longer lines are taken in pieces, so that looking something up never rereads more.
constexpr size_t kLongestPiece = 64 << 10;
constexpr size_t kCheckpointEvery = 64 << 10;
constexpr size_t kMostKilledLines = 1000;
constexpr size_t kExcerpt = 200;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Part of a line: up to a line end, a carriage return (progress bars redraw with it) or the length
// limit.
struct Piece {
  std::string_view text;
  size_t next;      // where the following one starts
  bool ends_line;   // a line feed stands behind it
  bool ends_early;  // the line goes on without any break
};

Piece PieceAt(std::string_view text, size_t begin) {
  const size_t limit = std::min(text.size(), begin + kLongestPiece);
  const size_t end = std::min(text.substr(0, limit).find_first_of("\r\n", begin), limit);
  const bool broken = end < limit;
  return {text.substr(begin, end - begin), end + (broken ? 1 : 0), broken && text[end] == '\n',
          !broken && end < text.size()};
}

// Bytes of the escape sequence (colours, titles, cursor) that starts at text[i]; 0 if none does.
size_t EscapeLength(std::string_view text, size_t i) {
  if (text[i] != '\x1b') return 0;
  if (i + 1 == text.size()) return 1;
  if (text[i + 1] == '[') {
    size_t end = i + 2;
    while (end < text.size() && end < i + 64 && (text[end] < 0x40 || text[end] > 0x7e)) ++end;
    return std::min(end + 1, text.size()) - i;
  }
  if (text[i + 1] == ']') {
    const size_t end = text.substr(0, i + 512).find_first_of("\x07\x1b", i + 2);
    if (end == std::string_view::npos) return 2;
    return end + (text[end] == '\x07' ? 1 : 2) - i;
  }
  return 2;
}

// Bytes of a character that is there for looks only at text[i]: blanks and control characters,
// no-break and zero-width spaces, box drawing. 0 if it is another one.
size_t DecorationLength(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0;
  };
  if (byte(0) <= ' ' || byte(0) == 0x7f) return 1;
  if (byte(0) == 0xc2 && byte(1) == 0xa0) return 2;
  if (byte(0) != 0xe2) return 0;
  if (byte(1) == 0x80 && byte(2) == 0x8b) return 3;
  return byte(1) == 0x94 || byte(1) == 0x95 ? 3 : 0;
}

// The number in "[rank1]:", "[default1]:" (torchrun) or "[1,3]<stderr>:" (mpirun) at the start of
// `text`; `*length` becomes the length of all of it.
std::optional<int64_t> ReadRank(std::string_view text, size_t* length) {
  constexpr std::array<std::string_view, 3> kStarts = {"[rank", "[default", "[1,"};
  constexpr std::array<std::string_view, 3> kEnds = {"]", "]", "]<std"};
  for (size_t form = 0; form < kStarts.size(); ++form) {
    if (text.compare(0, kStarts[form].size(), kStarts[form]) != 0) continue;
    size_t i = kStarts[form].size();
    int64_t rank = 0;
    size_t digits = 0;
    for (; i < text.size() && IsDigit(text[i]) && digits < 7; ++i, ++digits) {
      rank = rank * 10 + (text[i] - '0');
    }
    if (digits == 0 || text.compare(i, kEnds[form].size(), kEnds[form]) != 0) continue;
    const size_t colon = text.substr(0, i + 12).find(':', i);
    *length = colon == std::string_view::npos ? i + 1 : colon + 1;
    return rank;
  }
  return std::nullopt;
}

// Bytes of "(RayTrainWorker pid=4711, ip=...) " at the start of `text`.
size_t WorkerPrefixLength(std::string_view text) {
  if (text.empty() || text[0] != '(') return 0;
  const size_t end = text.substr(0, 120).find(')');
  if (end == std::string_view::npos) return 0;
  return text.substr(0, end).find("pid=") == std::string_view::npos ? 0 : end + 1;
}

// How much of the start of a line is not part of what was written; `*rank` becomes the rank in it.
size_t PrefixLength(std::string_view line, std::optional<int64_t>* rank) {
  size_t i = 0;
  while (i < line.size()) {
    size_t length = EscapeLength(line, i);
    if (length == 0) length = DecorationLength(line, i);
    if (length == 0 && (line[i] == '>' || line[i] == '#' || line[i] == '|')) length = 1;
    if (length == 0) {
      const std::optional<int64_t> found = ReadRank(line.substr(i), &length);
      if (found) *rank = found;
    }
    if (length == 0) length = WorkerPrefixLength(line.substr(i));
    if (length == 0) break;
    i += length;
  }
  return i;
}

// Calls take(i) for each index of `piece` whose character is kept.
template <typename Take>
void ForEachKept(std::string_view piece, size_t begin, Take take) {
  for (size_t i = begin; i < piece.size();) {
    size_t skip = EscapeLength(piece, i);
    if (skip == 0) skip = DecorationLength(piece, i);
    if (skip == 0) take(i);
    i += std::max<size_t>(skip, 1);
  }
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// What bash, zsh and others write for a program that was ended by SIGKILL. `line` is squeezed.
bool IsKilledLine(std::string_view line) {
  if (line.size() > 400) return false;
  // "Killed" alone, or behind a progress bar that did not end its line.
  if (line == "killed" || line == "已杀死" || EndsWith(line, "]killed")) return true;
  if (line.substr(0, 11) == "zsh:killed") return true;
  // "train.sh: line 28:  8156 Killed                  python3 main.py"
  const size_t at = line.find(":line");
  if (at == std::string_view::npos) return false;
  size_t i = at + 5;
  while (i < line.size() && (IsDigit(line[i]) || line[i] == ':')) ++i;
  return line.compare(i, 6, "killed") == 0;
}

}  // namespace

SqueezedLog::SqueezedLog(std::string_view text) : original_(text) {
  squeezed_.reserve(text.size());
  int64_t line = 1;
  bool starts_line = true;
  size_t last_checkpoint = 0;
  for (size_t begin = 0; begin < text.size();) {
    if (checkpoints_.empty() || begin - last_checkpoint >= kCheckpointEvery) {
      checkpoints_.push_back({squeezed_.size(), begin, line, starts_line});
      last_checkpoint = begin;
    }
    const Piece piece = PieceAt(text, begin);
    const size_t from = squeezed_.size();
    std::optional<int64_t> rank;
    ForEachKept(piece.text, starts_line ? PrefixLength(piece.text, &rank) : 0,
                [&](size_t i) { squeezed_.push_back(Lower(piece.text[i])); });
    if (starts_line && rank.value_or(-1) != (ranks_.empty() ? -1 : ranks_.back().second)) {
      ranks_.emplace_back(from, rank.value_or(-1));
    }
    const std::string_view kept = std::string_view(squeezed_).substr(from);
    if (starts_line && killed_lines_.size() < kMostKilledLines && IsKilledLine(kept)) {
      killed_lines_.push_back(squeezed_.size());
    }
    line += piece.ends_line ? 1 : 0;
    starts_line = !piece.ends_early;
    begin = piece.next;
  }
}

std::optional<int64_t> SqueezedLog::RankAt(size_t position) const {
  const auto after = std::upper_bound(
      ranks_.begin(), ranks_.end(), position,
      [](size_t value, const std::pair<size_t, int64_t>& entry) { return value < entry.first; });
  if (after == ranks_.begin() || std::prev(after)->second < 0) return std::nullopt;
  return std::prev(after)->second;
}

SqueezedLog::Place SqueezedLog::PlaceOf(size_t position) const {
  Place place;
  if (checkpoints_.empty()) return place;
  auto after = std::upper_bound(
      checkpoints_.begin(), checkpoints_.end(), position,
      [](size_t value, const Checkpoint& checkpoint) { return value < checkpoint.squeezed; });
  if (after != checkpoints_.begin()) --after;
  size_t squeezed = after->squeezed;
  place.line = after->line;
  bool starts_line = after->starts_line;
  for (size_t begin = after->original; begin < original_.size();) {
    const Piece piece = PieceAt(original_, begin);
    std::optional<int64_t> rank;
    const size_t prefix = starts_line ? PrefixLength(piece.text, &rank) : 0;
    size_t found = std::string_view::npos;
    ForEachKept(piece.text, prefix, [&](size_t i) {
      if (squeezed++ == position) found = i;
    });
    if (found != std::string_view::npos) {
      // Enough before it to name the exception; a long line is not shown from its start.
      const size_t start = std::max(prefix, found > 60 ? found - 60 : 0);
      for (size_t i = start; i < piece.text.size() && place.excerpt.size() < kExcerpt;) {
        const size_t escape = EscapeLength(piece.text, i);
        const auto c = static_cast<unsigned char>(piece.text[i]);
        if (escape == 0) place.excerpt += c < ' ' || c == 0x7f ? ' ' : piece.text[i];
        i += std::max<size_t>(escape, 1);
      }
      return place;
    }
    place.line += piece.ends_line ? 1 : 0;
    starts_line = !piece.ends_early;
    begin = piece.next;
  }
  return place;
}

}  // namespace kinefit
