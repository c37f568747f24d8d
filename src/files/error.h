#pragma once

#include <stdexcept>
#include <string>

namespace kinefit {

// The one exception type of the project: what was wrong, where, and what to do about it.
// `kinefit` prints it as three lines and exits with 2. Expected outcomes, such as one unreadable
// clip among thousands, are status values instead.
class Error : public std::runtime_error {
 public:
  // `problem`: what was wrong, in one sentence. `where`: file, key or sample ("" if the problem
  // names it already). `remedy`: what the user can do ("" if there is nothing useful to say).
  explicit Error(const std::string& problem, const std::string& where = "",
                 const std::string& remedy = "");

  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& remedy() const { return remedy_; }

 private:
  std::string problem_;
  std::string where_;
  std::string remedy_;
};

// The machine could not do it just now (too many open files, no memory for a decoder): no fault of
// the input, which must not be blamed for it.
class ResourceError : public Error {
 public:
  using Error::Error;
};

}  // namespace kinefit
