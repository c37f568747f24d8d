#include "config/nearest_key.h"

#include <algorithm>
#include <cctype>

#include "config/option_table.h"

namespace kinefit {
namespace {

constexpr size_t kFar = 1000;
constexpr size_t kLongestCompared = 100;
constexpr size_t kMostSuggestions = 3;

std::string Normalised(const std::string& text) {
  std::string result;
  for (const char c : text) {
    result += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return result;
}

// Distance of `key` to `known` if it is near enough to be meant, else kFar.
size_t Score(const std::string& key, const std::string& known) {
  const std::string last = LastComponent(key);
  const size_t tolerated = std::max<size_t>(1, last.size() / 3);
  const size_t whole = EditDistance(key, known);
  const size_t final_part = EditDistance(last, LastComponent(known));
  // The right name in the wrong section is as good a guess as one mistyped letter.
  const size_t moved = SectionOf(key) == SectionOf(known) ? 0 : 1;
  size_t score = kFar;
  if (whole <= tolerated) score = whole;
  if (final_part <= tolerated && final_part < last.size()) {
    score = std::min(score, final_part + moved);
  }
  return score;
}

}  // namespace

size_t EditDistance(const std::string& raw_a, const std::string& raw_b) {
  const std::string a = Normalised(raw_a);
  const std::string b = Normalised(raw_b);
  if (a.size() > kLongestCompared || b.size() > kLongestCompared) return kFar;
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

std::vector<std::string> NearestKeys(const std::string& key,
                                     const std::vector<std::string>& known) {
  size_t best = kFar;
  std::vector<std::string> nearest;
  for (const std::string& candidate : known) {
    const size_t score = Score(key, candidate);
    if (score < best) {
      best = score;
      nearest.clear();
    }
    if (score != best || best == kFar) continue;
    if (std::find(nearest.begin(), nearest.end(), candidate) == nearest.end()) {
      nearest.push_back(candidate);
    }
  }
  if (nearest.size() > kMostSuggestions) nearest.resize(kMostSuggestions);
  return nearest;
}

}  // namespace kinefit
