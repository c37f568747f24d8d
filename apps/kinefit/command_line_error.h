#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "files/error.h"

namespace kinefit {

// What is wrong with a command line that `app` could not parse, in the form of every other error:
// what is unknown and the nearest known, where, what to do. `words`: the command line without the
// program's name.
Error CommandLineError(const CLI::App& app, const CLI::ParseError& error,
                       const std::vector<std::string>& words);

}  // namespace kinefit
