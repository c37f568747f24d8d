#include "memory/bytes.h"

#include <gtest/gtest.h>

#include "files/error.h"

namespace kinefit {
namespace {

TEST(ParseBytes, KnowsBinaryAndDecimalUnits) {
  EXPECT_EQ(ParseBytes("6GiB", "budget"), int64_t{6} << 30);
  EXPECT_EQ(ParseBytes("39.5 gib", "budget"), int64_t{79} << 29);
  EXPECT_EQ(ParseBytes("512M", "budget"), int64_t{512} << 20);
  EXPECT_EQ(ParseBytes("2kB", "budget"), 2000);
  EXPECT_EQ(ParseBytes("1048576", "budget"), 1048576);
}

TEST(ParseBytes, RefusesEverythingElse) {
  for (const char* text : {"", "GiB", "6 apples", "-1GiB", "0", "1e40GiB", "nan", "inf", "6GiB7"}) {
    EXPECT_THROW(ParseBytes(text, "budget"), Error) << text;
  }
  try {
    ParseBytes("six", "memory.budget");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "memory.budget");
  }
}

}  // namespace
}  // namespace kinefit
