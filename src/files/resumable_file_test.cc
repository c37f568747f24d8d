#include "files/resumable_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "files/error.h"
#include "files/mapped_file.h"
#include "files/publish.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

TEST(ResumableFile, GoesOnWhereItWasLeft) {
  TestFolder folder;
  const std::string path = folder.File("x");
  { ResumableFile(path).Append("first "); }
  EXPECT_FALSE(std::filesystem::exists(path));
  {
    ResumableFile file(path);
    EXPECT_EQ(file.size(), 6U);
    file.Append("second, torn off in the mid");
  }
  ResumableFile file(path);
  file.Truncate(6);
  file.Append("second ");
  file.Overwrite(0, "FIRST");
  file.Commit();
  EXPECT_EQ(ReadFile(path), "FIRST second ");
  EXPECT_EQ(folder.Count(), 1);
}

TEST(ResumableFile, SurvivesAKilledProcess) {
  TestFolder folder;
  const std::string path = folder.File("x");
  const pid_t child = fork();
  if (child == 0) {
    ResumableFile file(path);
    file.Append("written before the end");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ResumableFile file(path);  // the lock went with the process
  EXPECT_EQ(ReadFile(file.partial_path()), "written before the end");
}

TEST(ResumableFile, IsForOneProcessAtATime) {
  TestFolder folder;
  ResumableFile first(folder.File("x"));
  try {
    ResumableFile second(folder.File("x"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.problem().find("another process"), std::string::npos) << error.what();
  }
}

TEST(ResumableFile, EveryFailingSystemCallIsAnErrorThatNamesTheTarget) {
  TestFolder folder;
  const std::string path = folder.File("x");
  PublishFile(path, "old");
  const auto write = [&] {
    ResumableFile file(path);
    file.Truncate(0);
    file.Append("new");
    file.Overwrite(0, "N");
    file.Commit();
  };
  int64_t failures = 0;
  for (int64_t nth = 0;; ++nth) {
    const ScopedFileFault fault(nth, ENOSPC);
    try {
      write();
      break;
    } catch (const Error& error) {
      ++failures;
      EXPECT_EQ(error.where(), path);
      EXPECT_NE(error.problem().find("the disk is full"), std::string::npos);
    }
  }
  EXPECT_EQ(failures, 7);  // open, cut, two writes, fsync, rename, fsync of the folder
  EXPECT_EQ(ReadFile(path), "New");
}

TEST(MappedFile, ShowsTheFileAndNoticesThatItWasCut) {
  TestFolder folder;
  const std::string bytes(20000, 'x');
  const MappedFile file(folder.Write("x", bytes));
  EXPECT_EQ(file.bytes(), bytes);
  file.Prefetch(100, 9000);
  file.Release(100, 9000);
  file.Release(30000, 5);
  EXPECT_EQ(file.bytes(), bytes);
  file.CheckSize();
  ASSERT_EQ(truncate(file.path().c_str(), 100), 0);
  EXPECT_THROW(file.CheckSize(), Error);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  TestFolder folder;
  EXPECT_EQ(MappedFile(folder.Write("empty", "")).bytes(), "");
  EXPECT_THROW(MappedFile(folder.File("missing")), Error);
  EXPECT_THROW(MappedFile(folder.path()), Error);
}

// Without a guard, reading behind the end of a file that was cut meanwhile ends the process.
TEST(MappedFile, AFileThatShrinksWhileItIsReadIsAnError) {
  TestFolder folder;
  const std::string path = folder.File("x");
  PublishFile(path, std::string(1 << 20, 'x'));
  const MappedFile file(path);
  EXPECT_EQ(file.bytes()[(1 << 20) - 1], 'x');
  std::filesystem::resize_file(path, 100);
  size_t sum = 0;
  for (const char c : file.bytes()) sum += static_cast<size_t>(c);
  EXPECT_LT(sum, size_t{1 << 20} * 'x');
  try {
    file.CheckSize();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), path);
    EXPECT_NE(error.problem().find("shorter"), std::string::npos);
  }
  std::filesystem::resize_file(path, 1 << 20);  // grown again: what was read is wrong all the same
  EXPECT_THROW(file.CheckSize(), Error);
}

}  // namespace
}  // namespace kinefit
