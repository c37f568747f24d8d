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
  EXPECT_EQ(ParseBytes("1048576B", "budget"), 1048576);
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

TEST(FormatAmount, WritesAsPyTorchDoes) {
  EXPECT_EQ(FormatAmount(0), "0 bytes");
  EXPECT_EQ(FormatAmount(1023), "1023 bytes");
  EXPECT_EQ(FormatAmount(1024), "1.00 KiB");
  EXPECT_EQ(FormatAmount(int64_t{62} << 20), "62.00 MiB");
  EXPECT_EQ(FormatAmount(24105503949), "22.45 GiB");
  EXPECT_EQ(FormatAmount(int64_t{5000} << 30), "5000.00 GiB");
  EXPECT_EQ(FormatAmount(-(int64_t{3} << 30)), "-3.00 GiB");
  EXPECT_EQ(AmountOption(24105503949), "22.45GiB");
  for (const int64_t bytes : {int64_t{512}, int64_t{3} << 20, int64_t{7} << 30}) {
    EXPECT_EQ(ParseBytes(FormatAmount(bytes), "here"), bytes);
  }
}

}  // namespace
}  // namespace kinefit
