#include "files/zip.h"

#include <gtest/gtest.h>

#include "files/error.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

void WriteTwo(const std::string& path) {
  ZipWriter zip(path);
  zip.Add("top/data.pkl", "hello");
  zip.Add("top/data/0", std::string(1000, 'z'));
  zip.Commit();
}

// Everything an archive holds, as a reader that checks sees it.
void ReadAll(const std::string& path) {
  const ZipReader zip(path);
  for (const ZipReader::Entry& entry : zip.entries()) zip.Read(entry, 1 << 20);
}

TEST(Zip, RoundTripWithAlignedData) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  EXPECT_TRUE(ZipReader::LooksLikeZip(folder.File("x.zip")));
  const ZipReader zip(folder.File("x.zip"));
  ASSERT_EQ(zip.entries().size(), 2u);
  EXPECT_EQ(zip.entries()[0].name, "top/data.pkl");
  EXPECT_EQ(zip.Read(zip.entries()[0]), "hello");
  const ZipReader::Entry* data = zip.Find("top/data/0");
  ASSERT_NE(data, nullptr);
  EXPECT_EQ(zip.Read(*data), std::string(1000, 'z'));
  for (const ZipReader::Entry& entry : zip.entries()) {
    EXPECT_EQ(entry.offset % 64, 0u);
    EXPECT_EQ(ReadFile(folder.File("x.zip")).substr(entry.offset, entry.size), zip.Read(entry));
    zip.Verify(entry);
  }
  EXPECT_EQ(zip.Find("data/0"), nullptr);
  EXPECT_THROW(zip.Read(*data, 999), Error);
}

TEST(Zip, ManyMembersNeedZip64) {
  TestFolder folder;
  {
    ZipWriter zip(folder.File("x.zip"));
    for (int i = 0; i < 70000; ++i) zip.Add(std::to_string(i), "x");
    zip.Commit();
  }
  const ZipReader zip(folder.File("x.zip"));
  EXPECT_EQ(zip.entries().size(), 70000u);
  EXPECT_EQ(zip.Read(*zip.Find("69999")), "x");
  if (PythonHas("zipfile")) {
    RunPython("import zipfile\nz = zipfile.ZipFile('" + folder.File("x.zip") +
              "')\nassert len(z.namelist()) == 70000 and z.read('69999') == b'x'");
  }
}

TEST(Zip, ReadsWhatPythonWritesAndTheOtherWay) {
  SKIP_WITHOUT_PYTHON("zipfile");
  TestFolder folder;
  WriteTwo(folder.File("ours.zip"));
  RunPython("import zipfile\nd = '" + folder.path() +
            "/'\n"
            "z = zipfile.ZipFile(d + 'ours.zip')\nassert z.testzip() is None\n"
            "assert z.read('top/data.pkl') == b'hello'\n"
            "with zipfile.ZipFile(d + 'packed.zip', 'w', zipfile.ZIP_DEFLATED) as z:\n"
            "  z.writestr('a', b'0123456789' * 100000)\n"
            "  z.writestr('empty', b'')\n"
            "  z.writestr('folder/', b'')\n"
            "  z.comment = b'a comment'\n"
            "  with z.open('streamed', 'w', force_zip64=True) as f: f.write(b'abc' * 1000)");
  const ZipReader zip(folder.File("packed.zip"));
  EXPECT_EQ(zip.entries().size(), 3u);
  const std::string a = zip.Read(*zip.Find("a"));
  ASSERT_EQ(a.size(), 1000000u);
  EXPECT_EQ(a.substr(a.size() - 10), "0123456789");
  EXPECT_EQ(zip.Read(*zip.Find("empty")), "");
  EXPECT_EQ(zip.Read(*zip.Find("streamed")).size(), 3000u);
}

TEST(HostileZip, CutOffAnywhereIsAnError) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  const std::string whole = ReadFile(folder.File("x.zip"));
  for (size_t size = 0; size < whole.size(); size += size < 200 || size > 1100 ? 1 : 50) {
    EXPECT_THROW(ReadAll(folder.Write("cut.zip", whole.substr(0, size))), Error) << size;
  }
}

TEST(HostileZip, AnyByteChangedIsAnErrorOrHarmless) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  const std::string whole = ReadFile(folder.File("x.zip"));
  int survived = 0;
  for (size_t at = 0; at < whole.size(); at += at < 200 || at > 1100 ? 1 : 50) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      const std::string path = folder.Write("changed.zip", changed);
      try {
        ReadAll(path);
        ++survived;
      } catch (const Error& error) {
        EXPECT_EQ(error.where(), path);
      }
    }
  }
  EXPECT_GT(survived, 0);  // dates, padding
}

TEST(HostileZip, ChangedDataFailsItsChecksum) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  std::string bytes = ReadFile(folder.File("x.zip"));
  bytes[bytes.find("hello")] = 'j';
  PublishFile(folder.File("x.zip"), bytes);
  const ZipReader zip(folder.File("x.zip"));
  EXPECT_THROW(zip.Read(zip.entries()[0]), Error);
  EXPECT_THROW(zip.Verify(zip.entries()[0]), Error);
  zip.Verify(zip.entries()[1]);
}

TEST(HostileZip, NamesThatLeaveTheArchiveAreErrors) {
  TestFolder folder;
  for (const char* name : {"../x", "/etc/passwd", "a/../../x", "a/..", "..", "a\\b", "C:x"}) {
    ZipWriter zip(folder.File("x.zip"));
    zip.Add(name, "x");
    zip.Commit();
    EXPECT_THROW(ReadAll(folder.File("x.zip")), Error) << name;
  }
  ZipWriter zip(folder.File("x.zip"));
  zip.Add("a..b/..c/d..", "x");
  zip.Commit();
  EXPECT_NO_THROW(ReadAll(folder.File("x.zip")));
}

TEST(HostileZip, TwoMembersOfOneNameAreAnError) {
  TestFolder folder;
  ZipWriter zip(folder.File("x.zip"));
  zip.Add("a", "1");
  zip.Add("a", "2");
  zip.Commit();
  EXPECT_THROW(ReadAll(folder.File("x.zip")), Error);
}

// The archive of WriteTwo with `size` bytes at `field` of the n-th directory record replaced.
std::string WithField(const std::string& whole, int n, size_t field, const std::string& value) {
  size_t at = 0;
  for (int i = 0; i <= n; ++i) at = whole.find("PK\x01\x02", at + 1);
  std::string changed = whole;
  return changed.replace(at + field, value.size(), value);
}

TEST(HostileZip, LyingDirectoriesAreErrors) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  const std::string whole = ReadFile(folder.File("x.zip"));
  const std::string huge("\xf0\xff\xff\x7f", 4);
  const std::string zero(4, '\0');
  const std::vector<std::string> lies = {
      WithField(whole, 0, 20, huge),  // packed size
      WithField(whole, 0, 24, huge),  // size
      WithField(WithField(whole, 0, 20, huge), 0, 24, huge),
      WithField(whole, 1, 42, zero),                        // both at the same place
      WithField(whole, 0, 42, huge),                        // outside the file
      WithField(whole, 0, 42, "\xff\xff\xff\xff"),          // ZIP64 without its field
      WithField(whole, 0, 8, std::string("\x01\x08", 2)),   // encrypted
      WithField(whole, 0, 10, std::string("\x0c\x00", 2)),  // bzip2
      WithField(WithField(whole, 0, 10, std::string("\x08\x00", 2)), 0, 24, huge),  // a bomb
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    PublishFile(folder.File("lie.zip"), lies[i]);
    EXPECT_THROW(ReadAll(folder.File("lie.zip")), Error) << i;
  }
}

TEST(HostileZip, TooManyMembersAreAnError) {
  TestFolder folder;
  WriteTwo(folder.File("x.zip"));
  ZipLimits limits;
  limits.max_entries = 1;
  EXPECT_THROW(ZipReader(folder.File("x.zip"), limits), Error);
}

TEST(HostileZip, NoArchiveAtAll) {
  TestFolder folder;
  PublishFile(folder.File("text"), std::string(100, 'a'));
  EXPECT_FALSE(ZipReader::LooksLikeZip(folder.File("text")));
  EXPECT_FALSE(ZipReader::LooksLikeZip(folder.File("missing")));
  EXPECT_THROW(ZipReader(folder.File("text")), Error);
  EXPECT_THROW(ZipReader(folder.File("missing")), Error);
  EXPECT_THROW(ZipReader(folder.path()), Error);
}

}  // namespace
}  // namespace kinefit
