#include "checkpoint/wrapped_names.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace kinefit {
namespace {

constexpr std::array<std::string_view, 4> kWrappers = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"};
constexpr std::array<std::string_view, 3> kHolders = {"model", "net", "network"};

template <size_t N>
bool IsOneOf(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

std::string UnwrappedName(const std::string& name, std::string* removed) {
  removed->clear();
  std::string kept;
  for (size_t start = 0;;) {
    const size_t stop = name.find('.', start);
    // The last part is the tensor's own name, whatever it is.
    if (stop == std::string::npos) return kept.append(name, start);
    const std::string_view part = std::string_view(name).substr(start, stop - start);
    const bool wrapper = IsOneOf(kWrappers, part) || (kept.empty() && IsOneOf(kHolders, part));
    (wrapper ? *removed : kept).append(part).push_back('.');
    start = stop + 1;
  }
}

bool EndsLikeAWeight(const std::string& name) {
  static constexpr std::array<std::string_view, 4> ends = {"weight", "bias", "running_mean",
                                                           "running_var"};
  return IsOneOf(ends, std::string_view(name).substr(name.rfind('.') + 1));
}

bool MayHoldWeights(const std::string& key) {
  for (const char* other : {"ema", "optim", "sched", "swa"}) {
    if (key.find(other) != std::string::npos) return false;
  }
  return true;
}

}  // namespace kinefit
