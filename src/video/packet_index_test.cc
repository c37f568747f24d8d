#include "video/packet_index.h"

#include <gtest/gtest.h>

#include <string>

namespace kinefit {
namespace {

// A NAL unit behind its length in four bytes.
std::string Nal(int type, int importance, size_t size = 3) {
  std::string unit = {0, 0, static_cast<char>(size >> 8), static_cast<char>(size & 255)};
  unit += static_cast<char>(importance << 5 | type);
  return unit + std::string(size - 1, 'x');
}

TEST(PacketIndexTest, KindsOfPictures) {
  PictureHeader header;
  EXPECT_TRUE(ReadPictureKind(Nal(6, 0) + Nal(5, 3, 700), 4, &header));
  EXPECT_TRUE(header.idr && header.reference);
  EXPECT_TRUE(ReadPictureKind(Nal(9, 0) + Nal(1, 2) + Nal(1, 2), 4, &header));
  EXPECT_TRUE(!header.idr && header.reference);
  EXPECT_TRUE(ReadPictureKind(Nal(1, 0) + Nal(12, 0), 4, &header));
  EXPECT_TRUE(!header.idr && !header.reference);
  EXPECT_TRUE(ReadPictureKind(Nal(1, 0).substr(2), 2, &header));
}

TEST(PacketIndexTest, WhatIsDoubtfulIsRefused) {
  PictureHeader header;
  EXPECT_FALSE(ReadPictureKind("", 4, &header));
  EXPECT_FALSE(ReadPictureKind(Nal(6, 0), 4, &header));               // no picture
  EXPECT_FALSE(ReadPictureKind(Nal(7, 3) + Nal(5, 3), 4, &header));   // new parameters
  EXPECT_FALSE(ReadPictureKind(Nal(2, 3), 4, &header));               // partitions
  EXPECT_FALSE(ReadPictureKind(Nal(1, 0) + Nal(1, 2), 4, &header));   // two pictures
  EXPECT_FALSE(ReadPictureKind(Nal(1, 0).substr(0, 6), 4, &header));  // cut off
  EXPECT_FALSE(ReadPictureKind(std::string("\0\0", 2), 4, &header));
  EXPECT_FALSE(ReadPictureKind(std::string(4, '\0'), 4, &header));
  EXPECT_FALSE(ReadPictureKind(Nal(1, 0), 5, &header));
}

// I P b b | I P b, in the order of decoding.
std::vector<PictureHeader> TwoGroups() {
  return {{true, true, 0, 0},  {false, true, 6, 30}, {false, false, 2, 10}, {false, false, 4, 20},
          {true, true, 0, 40}, {false, true, 4, 60}, {false, false, 2, 50}};
}

TEST(PacketIndexTest, NumbersFollowTheOrderOfDisplay) {
  std::vector<PictureHeader> packets = TwoGroups();
  EXPECT_EQ(NumberFrames(packets), (std::vector<int64_t>{0, 3, 1, 2, 4, 6, 5}));
  packets[2].time = 25;  // after frame 2
  EXPECT_TRUE(NumberFrames(packets).empty());
  packets = TwoGroups();
  packets[2].order = 4;
  EXPECT_TRUE(NumberFrames(packets).empty());
  packets = TwoGroups();
  packets[4].time = 30;
  EXPECT_TRUE(NumberFrames(packets).empty());
  packets[0].idr = false;
  EXPECT_TRUE(NumberFrames(packets).empty());
  EXPECT_TRUE(NumberFrames({}).empty());
}

TEST(PacketIndexTest, DecodesWhatIsNeeded) {
  const std::vector<PictureHeader> packets = TwoGroups();
  const std::vector<int64_t> numbers = NumberFrames(packets);
  using Flags = std::vector<bool>;
  DecodePlan plan = PlanDecoding(packets, numbers, {2});
  EXPECT_EQ(plan.decode, (Flags{true, true, false, true, false, false, false}));
  EXPECT_EQ(plan.first_of_run, Flags(7, false));
  plan = PlanDecoding(packets, numbers, {0, 6});  // the tail of the first group is left out
  EXPECT_EQ(plan.decode, (Flags{true, false, false, false, true, true, false}));
  EXPECT_EQ(plan.first_of_run, (Flags{false, false, false, false, true, false, false}));
  plan = PlanDecoding(packets, numbers, {5});
  EXPECT_EQ(plan.decode, (Flags{false, false, false, false, true, true, true}));
  EXPECT_TRUE(plan.first_of_run[4]);
  plan = PlanDecoding(packets, numbers, {2, 4});  // nothing that matters is left out between them
  EXPECT_EQ(plan.decode, (Flags{true, true, false, true, true, false, false}));
  EXPECT_FALSE(plan.first_of_run[4]);
}

}  // namespace
}  // namespace kinefit
