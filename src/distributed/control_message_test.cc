#include "distributed/control_message.h"

#include <gtest/gtest.h>

namespace kinefit {
namespace {

ControlMessage Failure() {
  ControlMessage message;
  message.kind = ControlKind::kFailed;
  message.start = 3;
  message.failure.rank = 5;
  message.failure.step = 1234567890123;
  message.failure.host = "node7";
  message.failure.phase = "computing";
  message.failure.why = "was killed by signal 9 (Killed)";
  message.failure.last = "say \"what\"\nand more";
  message.failure.log = "/logs/rank_5.log";
  message.failure.exit_code = 137;
  message.failure.again = false;
  message.failure.peer_lost = true;
  return message;
}

std::optional<ControlMessage> Parse(std::string line) {
  if (!line.empty() && line.back() == '\n') line.pop_back();
  std::string problem;
  return ParseControlMessage(line, &problem);
}

std::string ProblemOf(const std::string& line) {
  std::string problem;
  EXPECT_FALSE(ParseControlMessage(line, &problem)) << line;
  return problem;
}

TEST(ControlMessage, WhatIsWrittenIsRead) {
  const auto read = Parse(FormatControlMessage(Failure()));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->start, 3);
  EXPECT_EQ(read->failure.rank, 5);
  EXPECT_EQ(read->failure.step, 1234567890123);
  EXPECT_EQ(read->failure.why, "was killed by signal 9 (Killed)");
  EXPECT_EQ(read->failure.last, "say \"what\"; and more");
  EXPECT_EQ(read->failure.exit_code, 137);
  EXPECT_FALSE(read->failure.again);
  EXPECT_TRUE(read->failure.peer_lost);

  ControlMessage round;
  round.kind = ControlKind::kRound;
  round.start = 1;
  round.world = 6;
  round.wanted_world = 8;
  round.ranks = 2;
  round.first_rank = 4;
  round.port = 65535;
  const auto plan = Parse(FormatControlMessage(round));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->world, 6);
  EXPECT_EQ(plan->wanted_world, 8);
  EXPECT_EQ(plan->first_rank, 4);
  EXPECT_EQ(plan->port, 65535);
}

TEST(ControlMessage, AMessageAlwaysFitsIntoALine) {
  ControlMessage message = Failure();
  message.failure.last = std::string(100000, '\\');
  message.failure.why = std::string(100000, '"');
  message.failure.log = std::string(100000, '\xff');
  message.failure.phase = std::string("\x01\x02\x7f");
  const std::string line = FormatControlMessage(message);
  EXPECT_LE(line.size(), kMostControlBytes);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_TRUE(Parse(line)) << line;
}

TEST(ControlMessage, WhatIsWrongIsSaid) {
  EXPECT_EQ(ProblemOf(""), "it is no JSON object");
  EXPECT_EQ(ProblemOf("GET / HTTP/1.1"), "it is no JSON object");
  EXPECT_EQ(ProblemOf("[]"), "it is no JSON object");
  EXPECT_EQ(ProblemOf("{}"), "it is not from kinefit launch");
  EXPECT_EQ(ProblemOf(std::string(kMostControlBytes, '[')), "it is too long");
  EXPECT_EQ(ProblemOf(std::string(kMostControlBytes - 1, '[')), "it is no JSON object");
  EXPECT_NE(ProblemOf(R"({"kinefit_launch":2,"kind":"alive"})").find("version 2"),
            std::string::npos);
  EXPECT_EQ(ProblemOf(R"({"kinefit_launch":1,"kind":"dance"})"), "its \"kind\" is not known");
  EXPECT_EQ(ProblemOf(R"({"kinefit_launch":1,"kind":7})"), "its \"kind\" is not known");
  const std::string join = R"({"kinefit_launch":1,"kind":"join","nodes":2,"ranks":1,)";
  EXPECT_TRUE(Parse(join + R"("node":1,"host":"b"})"));
  EXPECT_EQ(ProblemOf(join + R"("host":"b"})"), "\"node\" is no whole number");
  EXPECT_EQ(ProblemOf(join + R"("node":0,"host":"b"})"), "\"node\" is out of range");
  EXPECT_EQ(ProblemOf(join + R"("node":-1,"host":"b"})"), "\"node\" is out of range");
  EXPECT_EQ(ProblemOf(join + R"("node":1.5,"host":"b"})"), "\"node\" is no whole number");
  EXPECT_EQ(ProblemOf(join + R"("node":18446744073709551615,"host":"b"})"),
            "\"node\" is out of range");
  EXPECT_EQ(ProblemOf(join + R"("node":1,"host":["b"]})"), "\"host\" is no text");
  EXPECT_EQ(ProblemOf(join + "\"node\":1,\"host\":\"" + std::string(766, 'b') + "\"}"),
            "\"host\" is too long");
}

// Nothing from another machine moves the cursor of the terminal it is shown on.
TEST(ControlMessage, TextComesWithoutControlCharacters) {
  const auto read =
      Parse(R"({"kinefit_launch":1,"kind":"over","exit_code":1,"text":"a\u001b[2Jb\u0007\nc"})");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->text, "a[2Jb; c");
}

}  // namespace
}  // namespace kinefit
