#include "files/publish.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "files/error.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

TEST(PublishFile, WritesAndReplaces) {
  TestFolder folder;
  const std::string path = folder.File("x");
  PublishFile(path, "one");
  PublishFile(path, std::string("two\0", 4));
  EXPECT_EQ(ReadFile(path), std::string("two\0", 4));
  EXPECT_EQ(folder.Count(), 1);
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_NE(info.st_mode & S_IRUSR, 0u);
}

TEST(AtomicFile, NothingAppearsBeforeCommit) {
  TestFolder folder;
  PublishFile(folder.File("x"), "old");
  {
    AtomicFile file(folder.File("x"));
    file.Write("half of the n");
    EXPECT_EQ(file.size(), 13u);
    EXPECT_EQ(ReadFile(folder.File("x")), "old");
  }
  EXPECT_EQ(ReadFile(folder.File("x")), "old");
  EXPECT_EQ(folder.Count(), 1);
}

TEST(AtomicFile, LargeAndSmallPiecesKeepTheirOrder) {
  TestFolder folder;
  std::string wanted;
  AtomicFile file(folder.File("x"));
  for (size_t size : {1u, 3000000u, 17u, 1048576u, 0u, 5u, 1048575u, 2u}) {
    const std::string piece(size, static_cast<char>('a' + size % 26));
    file.Write(piece);
    wanted += piece;
  }
  file.Commit();
  EXPECT_EQ(ReadFile(folder.File("x")), wanted);
}

TEST(AtomicFile, AnyFailingCallLeavesNoTrace) {
  TestFolder folder;
  const std::string path = folder.File("x");
  PublishFile(path, "old");
  const std::string fresh(3 << 20, 'n');
  int64_t calls = 0;
  for (int64_t nth = 0;; ++nth) {
    ASSERT_LT(nth, 30);
    const ScopedFileFault fault(nth, ENOSPC);
    try {
      PublishFile(path, fresh);
      calls = fault.calls();
      break;
    } catch (const Error& error) {
      EXPECT_NE(error.problem().find("the disk is full"), std::string::npos) << error.what();
      EXPECT_EQ(error.where(), path);
      EXPECT_NE(error.remedy(), "");
    }
    EXPECT_EQ(folder.Count(), 1);
    const std::string now = ReadFile(path);
    EXPECT_TRUE(now == "old" || now == fresh);
  }
  EXPECT_GE(calls, 5);  // create, write, flush, rename, flush of the folder
  EXPECT_EQ(ReadFile(path), fresh);
}

TEST(AtomicFile, BadPlacesAreExplained) {
  TestFolder folder;
  try {
    PublishFile(folder.File("missing/x"), "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.remedy(), "create the folder " + folder.File("missing"));
  }
  MakeFolder(folder.File("sub"));
  EXPECT_THROW(PublishFile(folder.File("sub"), "x"), Error);
  EXPECT_THROW(PublishFile("", "x"), Error);
  EXPECT_EQ(folder.Count(), 1);
  if (geteuid() == 0) return;  // root may write anywhere
  ASSERT_EQ(chmod(folder.File("sub").c_str(), 0500), 0);
  EXPECT_THROW(PublishFile(folder.File("sub/x"), "x"), Error);
}

// In a process of its own: the limit is the process's.
void WriteBeyondTheLimit(const std::string& path) {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{1 << 20, 1 << 20};
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(3);
  try {
    PublishFile(path, std::string(4 << 20, 'x'));
  } catch (const Error& error) {
    _exit(error.problem().find("larger than allowed") != std::string::npos ? 0 : 1);
  }
  _exit(2);
}

TEST(AtomicFile, ARealLimitIsAnErrorAndLeavesTheOldFile) {
  TestFolder folder;
  PublishFile(folder.File("x"), "old");
  const pid_t child = fork();
  if (child == 0) WriteBeyondTheLimit(folder.File("x"));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ReadFile(folder.File("x")), "old");
  EXPECT_EQ(folder.Count(), 1);
}

TEST(AtomicFile, KilledWritersLeaveOnlyATemporary) {
  TestFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(folder.File("x"));
    file.Write("half");
    raise(SIGKILL);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(folder.Count(), 1);
  const AtomicFile living(folder.File("y"));
  EXPECT_EQ(folder.Count(), 2);
  EXPECT_EQ(RemoveAbandonedTemporaries(folder.path()), 1);
  EXPECT_EQ(folder.Count(), 1);
  EXPECT_EQ(RemoveAbandonedTemporaries(folder.File("missing")), 0);
}

TEST(ReadFile, BadFilesAreErrors) {
  TestFolder folder;
  EXPECT_THROW(ReadFile(folder.File("missing")), Error);
  EXPECT_THROW(ReadFile(folder.path()), Error);
  EXPECT_THROW(ReadFile("/dev/zero"), Error);
  PublishFile(folder.File("x"), "12345");
  EXPECT_THROW(ReadFile(folder.File("x"), 4), Error);
  EXPECT_EQ(ReadFile(folder.File("x"), 5), "12345");
}

TEST(MakeFolder, MakesParentsAndComplains) {
  TestFolder folder;
  MakeFolder(folder.File("a/b/c"));
  MakeFolder(folder.File("a/b/c"));
  EXPECT_TRUE(std::filesystem::is_directory(folder.File("a/b/c")));
  PublishFile(folder.File("file"), "x");
  EXPECT_THROW(MakeFolder(folder.File("file")), Error);
  EXPECT_THROW(MakeFolder(folder.File("file/below")), Error);
}

TEST(Checksums, KnownValues) {
  EXPECT_EQ(Crc32("123456789", 9), 0xCBF43926u);
  EXPECT_EQ(Crc32("6789", 4, Crc32("12345", 5)), 0xCBF43926u);
  EXPECT_EQ(XxHash64(""), 0xEF46DB3751D8E999u);
  EXPECT_NE(XxHash64("a"), XxHash64("a", 1));
}

}  // namespace
}  // namespace kinefit
