#include "files/error.h"

namespace kinefit {
namespace {

std::string Describe(const std::string& problem, const std::string& where,
                     const std::string& remedy) {
  std::string text = problem;
  if (!where.empty()) text += "\n  where: " + where;
  if (!remedy.empty()) text += "\n  to do: " + remedy;
  return text;
}

}  // namespace

Error::Error(const std::string& problem, const std::string& where, const std::string& remedy)
    : std::runtime_error(Describe(problem, where, remedy)),
      problem_(problem),
      where_(where),
      remedy_(remedy) {}

}  // namespace kinefit
