#include "report/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "report/format.h"

namespace kinefit {
namespace {

TEST(DisplayWidth, CountsTerminalColumns) {
  EXPECT_EQ(DisplayWidth(""), 0);
  EXPECT_EQ(DisplayWidth("wave"), 4);
  EXPECT_EQ(DisplayWidth("挥手"), 4);
  EXPECT_EQ(DisplayWidth("é"), 1);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);   // combining accent
  EXPECT_EQ(DisplayWidth("\xff\xfe"), 2);  // not UTF-8
  EXPECT_EQ(DisplayWidth("\xe6\x8c"), 2);  // cut off in the middle of a character
}

TEST(DisplayWidth, PrefixNeverSplitsACharacter) {
  EXPECT_EQ(PrefixOfWidth("挥手 wave", 3), "挥");
  EXPECT_EQ(PrefixOfWidth("挥手 wave", 6), "挥手 w");
  EXPECT_EQ(PrefixOfWidth("wave", 0), "");
  EXPECT_EQ(PrefixOfWidth("wave", 9), "wave");
}

TEST(FormatTable, AlignsNumbersRightAndTextLeft) {
  EXPECT_EQ(FormatTable({{"stream", "top-1"}, {"rgb", "7.5 %"}, {"fused", "100.0 %"}}),
            "stream    top-1\n"
            "------  -------\n"
            "rgb       7.5 %\n"
            "fused   100.0 %\n");
}

TEST(FormatTable, AlignsWideCharacters) {
  EXPECT_EQ(FormatTable({{"class", "note"}, {"挥手", "a"}, {"sit", "b"}}),
            "class  note\n"
            "-----  ----\n"
            "挥手   a\n"
            "sit    b\n");
}

TEST(FormatTable, ShortRowsAndLineBreaksDoNotBreakIt) {
  EXPECT_EQ(FormatTable({{"a", "b", "c"}, {"x\ny"}, {"z", "-", "3"}}),
            "a    b  c\n"
            "---  -  -\n"
            "x y\n"
            "z    -  3\n");
  EXPECT_EQ(FormatTable({}), "");
}

TEST(Format, Durations) {
  EXPECT_EQ(FormatDuration(0.84), "0.8 s");
  EXPECT_EQ(FormatDuration(42), "42 s");
  EXPECT_EQ(FormatDuration(59.7), "1m 00s");
  EXPECT_EQ(FormatDuration(185), "3m 05s");
  EXPECT_EQ(FormatDuration(3725), "1h 02m");
  EXPECT_EQ(FormatDuration(2 * 86400 + 4 * 3600), "2d 04h");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(FormatDuration(std::nan("")), "?");
}

TEST(Format, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(38 * 1024), "38.0 KiB");
  EXPECT_EQ(FormatBytes(1235000000), "1.15 GiB");
  EXPECT_EQ(FormatBytes(1023 * 1024), "1.00 MiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "8.00 EiB");
}

TEST(Format, Percent) { EXPECT_EQ(FormatPercent(0.98336), "98.34 %"); }

}  // namespace
}  // namespace kinefit
