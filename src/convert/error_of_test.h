#pragma once

// For tests: what an Error says.

#include <gtest/gtest.h>

#include <string>

#include "files/error.h"

#define EXPECT_HAS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << (text)

namespace kinefit {

template <typename Action>
std::string ErrorOf(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace kinefit
